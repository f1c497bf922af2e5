cimport cython

from proxy.admission.accounts cimport Account, Counter, UserAccount, give_all, take_all
from proxy.protocol.state cimport State
from proxy.server.connection cimport ServerConnection
from proxy.server.link cimport Link
from proxy.stats cimport PoolStats

cdef class Pool:
    cdef object __weakref__
    cdef bint _serving
    cdef object _cluster, _options
    cdef double _check_delay, _lifetime
    cdef Py_ssize_t _most
    cdef public object accepted, active, closing, failed_with, idle, introductions, key, login, mode
    cdef public object pools, queue, resetting, schema
    cdef public tuple caps
    cdef Counter _of_all, _of_cluster
    cdef public bint paused
    cdef public int generation
    cdef public Py_ssize_t opening, sessions
    cdef public double last_used
    cdef public PoolStats stats

    cdef Py_ssize_t _size(self) except -1
    @cython.locals(account=Account, user=UserAccount, counters=tuple, server=ServerConnection)
    cpdef ServerConnection acquire(self, Link waiter, double now)
    @cython.locals(delay=double, newest=ServerConnection, server=ServerConnection)
    cpdef ServerConnection _pick(self, State needs, double now)
    cpdef object _lend(self, ServerConnection server, Account account, tuple counters)
    cpdef object checkin_at(self, ServerConnection server, double now, bint session_over=*)
    cpdef object _settle(self, ServerConnection server, str event, double now)
    @cython.locals(newest=ServerConnection)
    cpdef object _move(self, ServerConnection server, str event)
    @cython.locals(permits=tuple)
    cpdef object _give_permits(self, ServerConnection server)
