cimport cython

from proxy.admission.accounts cimport Account, Counter, give_all
from proxy.admission.guarantees cimport Kept
from proxy.admission.turns cimport Crowd
from proxy.server.connection cimport ServerConnection
from proxy.server.places cimport Places
from proxy.stats cimport PoolStats

cdef class Lending(Places):
    cdef Counter _of_all
    cdef Crowd _crowd
    cdef dict _guaranteed
    cdef Py_ssize_t _most
    cdef public Kept kept
    cdef public object queue
    cdef public PoolStats stats

    cpdef object _lend(self, ServerConnection server, Account account, tuple counters, double now)
    @cython.locals(permits=tuple)
    cpdef object _give_permits(self, ServerConnection server, double now)
    @cython.locals(seconds=double)
    cpdef object _charge(self, ServerConnection server, Account account, double now)
