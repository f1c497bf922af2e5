cimport cython

from proxy.client.conversation cimport Conversation
from proxy.protocol.statements cimport Statement
from proxy.sql.words cimport ends_block, says_nothing
from proxy.wire.frames cimport Scanner
from proxy.wire.pieces cimport end_of, same, word

cdef bytes _ASIDE, _NO_VALUES
cdef int HEADER_SIZE, _LAST, _QUERY, _PARSE, _BIND, _EXECUTE, _SYNC

@cython.locals(scanner=Scanner, data=bytes, start=Py_ssize_t, stop=Py_ssize_t, text=Py_ssize_t)
cpdef int blank(Conversation session, int kind) except -1
@cython.locals(stop=Py_ssize_t)
cdef Py_ssize_t _end(bytes data, Py_ssize_t start) except -1
@cython.locals(parsed=set, bound=bint, executed=bint, stop=Py_ssize_t, name_end=Py_ssize_t, text_end=Py_ssize_t, kind=int)
cdef int _batch(Conversation session, bytes data, Py_ssize_t start) except -1
@cython.locals(at=Py_ssize_t, name_end=Py_ssize_t, name=bytes, statement=Statement)
cdef bint _binds_nothing(Conversation session, bytes data, Py_ssize_t start, Py_ssize_t stop, set parsed) except -1
