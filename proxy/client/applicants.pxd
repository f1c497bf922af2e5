cimport cython

from proxy.auth.exchange cimport Asking, Exchange
from proxy.auth.methods cimport exchange
from proxy.protocol.state cimport State

cdef class Login:
    cdef public object entrance, tenant, user
    cdef public str database, replication
    cdef public State asked
    cdef public int protocol_minor
    cdef public bint chooses, is_console, tls

cdef class Applicant:
    cdef readonly object facts, user
    cdef readonly str claim, method, replication
    cdef readonly bytes negotiation
    cdef readonly Asking asking
    cdef readonly int minor
    cdef readonly bint tls
    cdef readonly long epoch
    cdef public Login login
    cdef Exchange _exchange

    @cython.locals(made=Exchange)
    cpdef Exchange talk(self)
