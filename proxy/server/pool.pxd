cimport cython

from proxy.admission.accounts cimport Account, Counter, UserAccount, give_all, take_all
from proxy.admission.turns cimport Crowd
from proxy.protocol.state cimport State
from proxy.server.connection cimport ServerConnection
from proxy.server.link cimport Link
from proxy.server.places cimport Places
from proxy.stats cimport PoolStats

cdef class Pool(Places):
    cdef object __weakref__
    cdef bint _serving
    cdef object _cluster, _options
    cdef double _check_delay, _lifetime
    cdef Py_ssize_t _most
    cdef public object accepted, claim, failed_with, introductions, key, login, mode, pools, queue, schema
    cdef Counter _of_all, _of_cluster
    cdef Crowd _crowd
    cdef public bint paused
    cdef public int generation
    cdef public Py_ssize_t sessions
    cdef public double last_used
    cdef public PoolStats stats

    @cython.locals(account=Account, user=UserAccount, counters=tuple, server=ServerConnection)
    cpdef ServerConnection acquire(self, Link waiter, double now)
    @cython.locals(delay=double, newest=ServerConnection, server=ServerConnection)
    cpdef ServerConnection _pick(self, State needs, double now)
    cpdef object _lend(self, ServerConnection server, Account account, tuple counters, double now)
    cpdef object checkin_at(self, ServerConnection server, double now, bint session_over=*)
    cpdef object _settle(self, ServerConnection server, str event, double now)
    @cython.locals(permits=tuple)
    cpdef object _give_permits(self, ServerConnection server, double now)
    @cython.locals(seconds=double)
    cpdef object _charge(self, ServerConnection server, Account account, double now)
