cimport cython

from proxy.admission.accounts cimport Account, Counter, give_all
from proxy.admission.adaptive cimport Strain
from proxy.admission.charging cimport begin, correct, end
from proxy.admission.guarantees cimport Guarantee, Kept
from proxy.admission.queue cimport FairQueue
from proxy.admission.turns cimport Crowd, Rota
from proxy.net.transport cimport hurry
from proxy.server.connection cimport ServerConnection
from proxy.server.places cimport Places
from proxy.stats cimport PoolStats

cdef class Lending(Places):
    cdef Counter _of_all
    cdef Crowd _crowd
    cdef Py_ssize_t _most
    cdef public Kept kept
    cdef public FairQueue queue
    cdef Strain _strain
    cdef public PoolStats stats

    @cython.locals(hurried=bint)
    cpdef object _lend(self, ServerConnection server, Account account, tuple counters, Guarantee guarantee, double now)
    @cython.locals(permits=tuple)
    cpdef object _give_permits(self, ServerConnection server, double now)
    @cython.locals(seconds=double, charged=double, guarantee=Guarantee, rota=Rota)
    cpdef object _charge(self, ServerConnection server, Account account, double now)
    cdef Guarantee _keep(self, Account account, double now)
    cdef bint _has_more_than_is_kept(self) except -1
    @cython.locals(counter=Counter, most=Py_ssize_t)
    cdef Py_ssize_t _reach(self) except -1
    cdef Py_ssize_t _for_all(self) except -1
