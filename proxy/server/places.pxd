from proxy.server.connection cimport ServerConnection

cdef object _ACTIVE, _IDLE, _RESETTING

cdef class Places:
    cdef public list idle
    cdef public set active, closing, resetting
    cdef public tuple caps
    cdef public Py_ssize_t opening

    cdef Py_ssize_t _size(self) except -1
    @cython.locals(new=object, old=object)
    cpdef object _move(self, ServerConnection server, str event)
