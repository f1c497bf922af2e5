cdef class Crowd:
    cdef public Py_ssize_t waiting
