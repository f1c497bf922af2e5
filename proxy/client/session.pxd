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
cdef int _TERMINATE, _BIND, _GO, _NEXT, _STOP
cdef bytes COPY_ENDS, SERVERLESS

cdef class Session(Hearing):
    cpdef object data_received(self, bytes data)
    @cython.locals(
        scanner=Scanner, server=ServerConnection, sent=Py_ssize_t, told=int, kind=int, step=int, stop=Py_ssize_t
    )
    cpdef object _read(self, bytes data)
    @cython.locals(chooser=Chooser, scanner=Scanner, server=ServerConnection, heard=int, rest=bytes)
    cdef int _choose(self, int kind, int told) except -1
    @cython.locals(server=ServerConnection, ahead=bytes)
    cdef int _connect(self, int kind) except -1
    @cython.locals(step=int, first=bint)
    cdef int _pass_on(self, ServerConnection server, int kind, int told) except -1
    @cython.locals(due=int)
    cdef int _pay(self, ServerConnection server, int kind) except -1
    @cython.locals(chooser=Chooser, waits=bint)
    cdef int _wait(self, ServerConnection server, int kind, int told, bint first) except -1
    @cython.locals(scanner=Scanner, instead=bytes)
    cdef int _ask(self, ServerConnection server, int kind, int told, bint first) except -1
    cdef bint _must_wait(self, ServerConnection server, int kind) except -1
    @cython.locals(start=Py_ssize_t)
    cdef object _put_ahead(self, bytes more)
    cdef object _send_ahead(self)
    @cython.locals(pieces=list, data=bytes)
    cdef object _send(self, ServerConnection server, bytes last)
    cpdef object _terminate(self)
    @cython.locals(server=ServerConnection)
    cpdef object _close(self)
