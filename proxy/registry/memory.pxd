cdef class Registry:
    cdef public long epoch
    cdef public object _base, _by_id, _directory, _lives
    cdef public dict _disabled, _limits, _rules
