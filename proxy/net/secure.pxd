cimport cython

from proxy.net.transport cimport SocketTransport

cdef int _OPEN, _CLOSED
cdef Py_ssize_t _PIECE, _RECORD

cdef class SecureTransport(SocketTransport):
    cdef object _incoming, _outgoing, _records, _shaken, _tls
    cdef bint _over
    cdef Py_ssize_t _owed

    cpdef object write(self, bytes data)
    cpdef object close(self)
    cpdef object resume_reading(self)
    cdef object _finish(self)
    cdef object _shake(self)
    @cython.locals(size=Py_ssize_t, plain=bytes)
    cdef object _take(self, bytes data)
    @cython.locals(pieces=list, told=bytes)
    cdef object _take_more(self, bytes plain)
    cdef object _stopped(self, object error)
    cdef object _answer(self)
    cdef object _write_pieces(self, bytes data)
    cdef object _flush(self)
    cdef object _lose(self, object error)
