cimport cython

from proxy.client.conversation cimport Conversation
from proxy.protocol.pipeline cimport Expect
from proxy.protocol.state cimport State
from proxy.protocol.statements cimport Statement
from proxy.server.connection cimport ServerConnection

cdef int _QUERY, _SYNC, _PARSE, _BIND
cdef bytes _BEHIND, _NAME, _OF_BATCHES
cdef Py_ssize_t _LONGEST
cdef tuple _ANSWERS

cpdef bytes at_once(Conversation session, ServerConnection server, object opener, str guc)
@cython.locals(needs=State, data=bytes, start=Py_ssize_t, text=bytes)
cdef bytes _at_once(Conversation session, ServerConnection server, object opener, str guc)
@cython.locals(data=bytes, start=Py_ssize_t, stop=Py_ssize_t, ahead=bytes)
cdef bytes _assured(Conversation session, ServerConnection server, object opener)
cpdef bint is_sure(Conversation session, ServerConnection server, State needs, str guc) except -1
cdef tuple _at_hand(Conversation session)
cdef bint _is_whole(bytes data, Py_ssize_t start) except -1
cdef bint _is_plain_question(Conversation session, bytes text) except -1
cpdef bint _differs(bytes text) except -1
cdef bint _is_plain_text(Conversation session, bytes text) except -1
@cython.locals(at=Py_ssize_t, stop=Py_ssize_t, kind=int, name=bytes, text=bytes)
cdef bint _is_plain_batch(Conversation session, bytes data, Py_ssize_t start) except -1
@cython.locals(statement=Statement)
cdef bint _is_plain(Conversation session, bytes name) except -1
@cython.locals(entry=Expect, asked=bytes)
cpdef bytes as_messages(Conversation session, ServerConnection server, bytes text)
