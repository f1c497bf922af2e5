cimport cython

from proxy.client.batches cimport begins_with_bind, begins_with_parse
from proxy.client.conversation cimport Conversation
from proxy.client.prepared cimport on_bind, on_describe, on_parse
from proxy.client.refusals cimport refusal
from proxy.client.unnamed cimport unnamed_is
from proxy.protocol.pipeline cimport Expect, expect_of
from proxy.server.connection cimport ServerConnection

from proxy.sql.words cimport surely_plain
from proxy.wire.decode cimport query_within
from proxy.wire.pieces cimport end_of

cdef int HEAD, HEADER_SIZE, FOLLOWS, SENT, _QUERY, _PARSE, _BIND, _DESCRIBE, _EXECUTE, _SYNC

@cython.locals(text=bytes, hides=bint, at=Py_ssize_t)
cpdef bytes on_query(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cdef bytes _on_unread_query(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop)
cdef bytes _refused(Conversation session, ServerConnection server, bytes error)
cdef bytes _refused_by_server(Conversation session, ServerConnection server, bytes text, object verdict, bytes error)
cdef bytes _on_query_of_effect(
    Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, bytes text,
    object verdict, bint hides
)
cdef bytes _on_plain_query(Conversation session, ServerConnection server)
cpdef bytes on_execute(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cpdef bytes on_sync(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
@cython.locals(instead=bytes)
cpdef bytes handle(
    int kind, Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told
)
