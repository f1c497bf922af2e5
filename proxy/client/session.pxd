from proxy.client.linking cimport Linking
from proxy.server.connection cimport ServerConnection

cimport cython

from proxy.client.requests cimport handle
from proxy.wire.frames cimport Scanner

cdef int MORE, HEAD, IDLE
cdef int _QUERY, _FUNCTION, _SYNC, _TERMINATE, _FLUSH, _BIND, _PARSE
cdef bytes _COPY_ENDS, _SERVERLESS

cdef class Session(Linking):
    cpdef object data_received(self, bytes data)
    @cython.locals(
        scanner=Scanner, server=ServerConnection, out=list, sent=Py_ssize_t, told=int, kind=int, start=Py_ssize_t,
        stop=Py_ssize_t, rest=bytes,
    )
    cpdef object _read(self, bytes data)
    cpdef object _flush(self, ServerConnection server, list out, bytes rest)
    cpdef bint _answered(self, int kind) except -1
    cpdef bint _is_work(self, Scanner scanner, int kind) except -1
    cpdef bint _at_once(self) except -1
    @cython.locals(scanner=Scanner)
    cpdef bint _begins_again(self, int kind, int told) except -1
