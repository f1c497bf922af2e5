cdef class Registry:
    cdef public long epoch
    cdef public object rows, finder, logins, roles
    cdef public bint _asks_clusters
    cdef public object _base, _by_id, _directory, _lives, _options
    cdef public dict _disabled, _limits, _rules
