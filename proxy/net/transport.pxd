cimport cython

from proxy.net.sockets cimport receive, send

cdef int _OPEN, _CLOSING, _CLOSED

cdef class SocketTransport:
    cdef object _backlog, _lookout, _loop, _protocol
    cdef int _fd, _state
    cdef Py_ssize_t _kept
    cdef bint _paused, _reading, _writing

    cpdef object write(self, bytes data)
    cdef object _keep(self, bytes data)

@cython.locals(plain=SocketTransport)
cpdef object deliver(object transport, bytes data)
