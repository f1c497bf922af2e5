cimport cython

from proxy.client.answering cimport Chooser
from proxy.client.hearing cimport Hearing
from proxy.client.requests cimport handle
from proxy.client.throttling cimport asked, may_begin, pay
from proxy.net.clock cimport monotonic
from proxy.server.connection cimport ServerConnection
from proxy.wire.frames cimport Scanner
from proxy.wire.pieces cimport joined, piece, put

cdef int MORE, HEAD, IDLE, SENT
cdef int AGAIN, BEHIND, DONE, HALT, PAID, SEEK
cdef int _TERMINATE, _BIND
cdef bytes COPY_ENDS, SERVERLESS

cdef class Session(Hearing):
    cpdef object data_received(self, bytes data)
    @cython.locals(
        scanner=Scanner, server=ServerConnection, out=list, sent=Py_ssize_t, told=int, kind=int, start=Py_ssize_t,
        stop=Py_ssize_t, rest=bytes, chooser=Chooser, heard=int, metered=bint, due=int, waits=bint, ahead=bytes, instead=bytes,
    )
    cpdef object _read(self, bytes data)
    cdef bint _must_wait(self, ServerConnection server, int kind) except -1
    cpdef object _flush(self, ServerConnection server, list out, bytes rest)
