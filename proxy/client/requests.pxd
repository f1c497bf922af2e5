cimport cython

from proxy.client.conversation cimport Conversation
from proxy.client.refusals cimport refusal
from proxy.protocol.pipeline cimport expect_of
from proxy.protocol.statements cimport Statement
from proxy.server.connection cimport ServerConnection

from proxy.wire.decode cimport bind_names, parse_fields
from proxy.wire.decode cimport query as read_query

cdef int HEAD, HEADER_SIZE, FAILED, _QUERY, _BIND, _DESCRIBE, _EXECUTE, _SYNC, _PORTAL, _BIND_REPLY

cdef class UnnamedIs:
    cdef Conversation _session
    cdef ServerConnection _server
    cdef bint _fresh
    cdef Statement _before, _own

@cython.locals(text=bytes)
cpdef bytes on_query(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
@cython.locals(name=bytes, known_as=bytes, ahead=bytes, statement=Statement)
cpdef bytes on_bind(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cpdef bytes on_describe(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cpdef bytes on_execute(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cpdef bytes on_sync(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cpdef object _parse_unnamed(Conversation session, ServerConnection server, Statement statement)
@cython.locals(statement=Statement)
cpdef tuple _statement_for_use(Conversation session, ServerConnection server, bytes name)
cpdef bytes handle(
    int kind, Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told
)
