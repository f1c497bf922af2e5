from proxy.admission.accounts cimport Account, UserAccount
from proxy.net.transport cimport Receiver
from proxy.protocol.state cimport State

cdef class Link(Receiver):
    cdef public Account account
    cdef public UserAccount user_account
    cdef public Link ahead, behind
    cdef public object awaited, limits, line
    cdef public State state_needed
    cdef public bint hurried
    cdef public double wait_limit, wait_notice, waiting_since

    cpdef object hurry(self, bint hurried)
    cdef object _set_up(self, Account account, UserAccount user_account, object limits, State state_needed)
    cpdef object limit_by(self, object limits)
    cpdef object granted(self, object server)
    cpdef object replies(self, bytes data)
    cpdef object server_ready(self)
