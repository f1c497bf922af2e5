cimport cython

from proxy.client.answering cimport Chooser
from proxy.client.linking cimport Linking
from proxy.client.throttling cimport counted
from proxy.protocol.statements cimport Statement
from proxy.server.connection cimport ServerConnection
from proxy.sql.opening cimport works
from proxy.wire.decode cimport bind_names_within
from proxy.wire.frames cimport Scanner

cdef int DONE, HEAD, HEADER_SIZE, IDLE, PASS
cdef int _QUERY, _FUNCTION, _SYNC, _FLUSH, _BIND, _PARSE

cdef class Hearing(Linking):
    @cython.locals(error=bytes, bare=bint)
    cpdef bint _answered(self, int kind) except -1
    @cython.locals(chooser=Chooser)
    cpdef bint _is_heard(self, ServerConnection server, int kind) except -1
    @cython.locals(at=Py_ssize_t, name=bytes, statement=Statement)
    cpdef bint _is_work(self, Scanner scanner, int kind) except -1
    @cython.locals(chooser=Chooser, scanner=Scanner, ours=bint)
    cpdef int _hear(self, ServerConnection server, int kind, int told) except -1
    @cython.locals(chooser=Chooser)
    cpdef bint _at_once(self) except -1
    @cython.locals(chooser=Chooser, scanner=Scanner)
    cpdef bint _begins_again(self, int kind, int told) except -1
    @cython.locals(chooser=Chooser, scanner=Scanner)
    cpdef bint _opens(self, ServerConnection server, int kind, int told) except -1
