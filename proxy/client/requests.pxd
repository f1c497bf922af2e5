from proxy.client.conversation cimport Conversation
from proxy.protocol.statements cimport Statement
from proxy.server.connection cimport ServerConnection

cdef int HEAD, FAILED, _QUERY, _BIND, _DESCRIBE, _EXECUTE, _SYNC

cpdef bytes on_query(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cpdef bytes on_bind(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cpdef bytes on_describe(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cpdef bytes on_execute(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cpdef bytes on_sync(Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told)
cpdef tuple _statement_for_use(Conversation session, ServerConnection server, bytes name)
cpdef bytes handle(
    int kind, Conversation session, ServerConnection server, bytes data, Py_ssize_t start, Py_ssize_t stop, int told
)
