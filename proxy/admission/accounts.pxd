cimport cython

from proxy.admission.gate cimport Gate
from proxy.admission.turns cimport Place, Rota, Turns
from proxy.stats cimport TenantStats

cdef class Counter

cdef class Seeker(Place):
    cdef public Counter counter

@cython.final
cdef class Counter:
    cdef public str name
    cdef public long allowance, leaving, owed, used, wish
    cdef public bint attended, backed, sought
    cdef public object lender, refused, reserve
    cdef public long _limit
    cdef public Rota rota
    cdef public Turns _waiting

    cpdef object give(self)

@cython.locals(counter=Counter, taken=Counter)
cpdef Counter take_all(tuple counters)

@cython.locals(counter=Counter)
cpdef object give_all(tuple counters)

cdef class TierAccount:
    cdef public Counter clients, servers
    cdef public object tier
    cdef public long max_queue, waiting, weight

cdef class UserAccount:
    cdef public Counter clients, servers
    cdef public object user
    cdef public long max_queue, waiting

cdef class Account:
    cdef public Counter clients, servers
    cdef public Gate gate
    cdef public object guarantor, limits, tenant
    cdef object _gate, _gates
    cdef UserAccount _of
    cdef tuple _together
    cdef public TierAccount tier
    cdef public TenantStats stats
    cdef public long max_queue, waiting
    cdef public double expected, guaranteed

    cpdef tuple server_counters(self, UserAccount user)
