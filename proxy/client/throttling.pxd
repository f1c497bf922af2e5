cimport cython

from proxy.admission.gate cimport Gate
from proxy.client.blanks cimport blank
from proxy.client.conversation cimport Conversation
from proxy.net.clock cimport monotonic
from proxy.server.connection cimport ServerConnection
from proxy.wire.frames cimport Scanner
from proxy.wire.pieces cimport parted

cdef int COUNTS, FREE_EXECUTE, PASSES, HEAD, HEADER_SIZE, IDLE, _QUERY

@cython.locals(gate=Gate, kind=int)
cpdef bint may_begin(Conversation session, double now) except -1
cdef bint _begins_later(Conversation session, Gate gate, double now) except -1
@cython.locals(found=int)
cdef bint _passes(Conversation session, Gate gate, int kind) except -1
@cython.locals(gate=Gate)
cpdef bint counted(Conversation session) except -1
@cython.locals(gate=Gate, owing=bint)
cpdef int pay(Conversation session, ServerConnection server, int kind) except -1
@cython.locals(gate=Gate, scanner=Scanner)
cpdef object asked(Conversation session, int kind, int told)
