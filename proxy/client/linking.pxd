cimport cython

from proxy.client.conversation cimport Conversation
from proxy.client.throttling cimport may_begin
from proxy.net.clock cimport monotonic
from proxy.net.transport cimport deliver
from proxy.protocol.state cimport State
from proxy.server.connection cimport ServerConnection

cdef int FAILED, IDLE

cdef class Linking(Conversation):
    @cython.locals(data=bytes)
    cpdef object resume(self)
    cpdef object _process(self, bytes data)
    @cython.locals(now=double, server=ServerConnection)
    cpdef ServerConnection _link(self)
    @cython.locals(ahead=bytes)
    cpdef bytes _bring(self, ServerConnection server)
    @cython.locals(uses="long long")
    cpdef object _attach(self, ServerConnection server)
    @cython.locals(needs=State, sure=bint, ahead=bytes)
    cpdef bytes _take_state(self, ServerConnection server)
    cpdef bint enter(self, ServerConnection server) except -1
    @cython.locals(ahead=bytes)
    cpdef bint _enter(self, ServerConnection server, double now) except -1
    @cython.locals(linked=ServerConnection, waited=bint)
    cpdef object granted(self, object server)
    cpdef object replies(self, bytes data)
    @cython.locals(server=ServerConnection)
    cpdef object server_ready(self)
    cpdef object _unlink(self, ServerConnection server)
