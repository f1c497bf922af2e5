cdef class Kept:
    cdef public Py_ssize_t count
    cdef dict _asked
