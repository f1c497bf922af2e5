cimport cython

from proxy.client.conversation cimport Conversation
from proxy.client.refusals cimport refusal
from proxy.protocol.pipeline cimport Pipeline, expect_of
from proxy.protocol.statements cimport Statement, unnamed_statement
from proxy.client.unnamed cimport unnamed_is
from proxy.server.connection cimport ServerConnection

from proxy.wire.decode cimport bind_names_within, parse_within

cdef int HEAD, HEADER_SIZE, FAILED, _PORTAL, _PARSE_REPLY, _BIND_REPLY

cpdef object evict(Conversation session, object verdict)
cdef bint _is_the_clients(Conversation session, bytes name) except -1
@cython.locals(name=bytes, text=bytes, oids=bytes, own=Statement)
cpdef bytes on_parse(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
@cython.locals(name=bytes, known_as=bytes, ahead=bytes, statement=Statement)
cpdef bytes on_bind(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cpdef bytes on_describe(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
@cython.locals(statement=Statement, pipeline=Pipeline)
cpdef tuple _statement_for_use(Conversation session, ServerConnection server, bytes name)
