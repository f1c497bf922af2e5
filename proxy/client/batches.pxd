cimport cython

from proxy.client.conversation cimport Conversation
from proxy.client.settled cimport Settled
from proxy.client.unnamed cimport UnnamedIs, unnamed_is
from proxy.protocol.pipeline cimport batch_of
from proxy.protocol.statements cimport Statement, unnamed_statement
from proxy.server.connection cimport ServerConnection
from proxy.wire.pieces cimport end_of, piece, rebound, same, word

cdef bytes _DESCRIBE, _EXECUTE, _SYNC, _BIND_UNNAMED, _KINDS, _KINDS_DESCRIBED, _KINDS_PARSED, _KINDS_ALL
cdef Py_ssize_t _MOST_ROWS
cdef int _BIND

@cython.locals(chooser=Settled)
cdef bint _usual(Conversation session, ServerConnection server) except -1
cdef Py_ssize_t _behind_bind(bytes data, Py_ssize_t at) except -1
@cython.locals(text_end=Py_ssize_t, own=Statement, oids=bytes, text=bytes)
cdef Statement _parsed(Conversation session, bytes data, Py_ssize_t start, Py_ssize_t stop)
@cython.locals(own=Statement, length=Py_ssize_t, bound=Py_ssize_t, end=Py_ssize_t, described=bint)
cpdef bint begins_with_parse(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop) except -1
@cython.locals(end=Py_ssize_t, name_end=Py_ssize_t, name=bytes, statement=Statement, described=bint)
cpdef bytes begins_with_bind(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop)
