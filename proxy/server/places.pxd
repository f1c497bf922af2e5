cimport cython

from proxy.server.connection cimport ServerConnection

cdef object _ACTIVE, _IDLE, _RESETTING

cdef class Places:
    cdef public list active, idle
    cdef public set closing, resetting
    cdef public tuple caps
    cdef public Py_ssize_t opening

    cdef Py_ssize_t _size(self) except -1
    @cython.locals(new=object, old=object)
    cpdef object _move(self, ServerConnection server, str event)
    @cython.locals(place=Py_ssize_t, last=ServerConnection)
    cdef object _leave_active(self, ServerConnection server)
