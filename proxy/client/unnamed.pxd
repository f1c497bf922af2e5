cimport cython

from proxy.client.conversation cimport Conversation
from proxy.protocol.pipeline cimport Pipeline
from proxy.protocol.statements cimport Statement
from proxy.server.connection cimport ServerConnection

@cython.freelist(16)
cdef class UnnamedIs:
    cdef Conversation _session
    cdef ServerConnection _server
    cdef bint _fresh
    cdef public bint _stands
    cdef Statement _own
    cdef public Statement _before
    cdef public UnnamedIs _newer

    @cython.locals(pipeline=Pipeline, older=object, before=UnnamedIs)
    cpdef object begin(self, Conversation session, ServerConnection server, Statement own, bint fresh)

@cython.locals(made=UnnamedIs)
cpdef UnnamedIs unnamed_is(Conversation session, ServerConnection server, Statement own, bint fresh)
