cimport cython

from proxy.net.readiness cimport Readiness, Watched, readiness
from proxy.net.sockets cimport hang_up, receive, send

cdef int _OPEN, _CLOSING, _CLOSED
cdef unsigned int _END, _OUT
cdef Py_ssize_t _READ_SIZE

cdef class Receiver:
    cpdef object data_received(self, bytes data)

cdef class SocketTransport(Watched):
    cdef object _backlog, _loop, _protocol
    cdef Receiver _receiver
    cdef Readiness _readiness
    cdef int _fd, _state
    cdef Py_ssize_t _kept
    cdef bint _ended, _hurried, _paused, _reading, _unread, _writing

    cpdef object hurry(self, bint hurried)
    cpdef object ready(self, unsigned int events)
    cpdef object look(self)
    cpdef object pause_reading(self)
    cpdef object resume_reading(self)
    cpdef object write(self, bytes data)
    cpdef object close(self)
    @cython.locals(watch=Readiness)
    cdef object _watch(self)
    @cython.locals(data=bytes, received=bint)
    cdef object _read(self)
    @cython.locals(receiver=Receiver)
    cdef object _take(self, bytes data)
    cdef object _finish(self)
    cdef object _keep(self, bytes data)
    cdef object _writable(self)
    @cython.locals(watch=Readiness)
    cdef object _lose(self, object error)
    cpdef object lost(self, object error)
    cpdef object set_protocol(self, object protocol)

@cython.locals(ours=SocketTransport)
cpdef object hurry(object transport, bint hurried)
@cython.locals(ours=SocketTransport)
cpdef object deliver(object transport, bytes data)
