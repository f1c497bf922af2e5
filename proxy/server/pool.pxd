cimport cython

from proxy.admission.accounts cimport Account, Counter
from proxy.protocol.state cimport State
from proxy.server.connection cimport ServerConnection
from proxy.stats cimport PoolStats

cdef class Pool:
    cdef object __weakref__
    cdef bint _serving
    cdef public object accepted, active, closing, cluster, failed_with, idle, introductions, key, login, mode
    cdef public object options, pools, queue, resetting
    cdef public bint paused
    cdef public int generation
    cdef public Py_ssize_t opening, sessions
    cdef public double last_used
    cdef public PoolStats stats

    @cython.locals(account=Account, counters=tuple, server=ServerConnection)
    cpdef ServerConnection acquire(self, waiter, double now)
    @cython.locals(server=ServerConnection)
    cpdef ServerConnection _pick(self, State needs, double now)
    cpdef object _lend(self, ServerConnection server, Account account, tuple counters)
    cpdef object _settle(self, ServerConnection server, str event)
    cpdef object _move(self, ServerConnection server, str event)
    @cython.locals(permits=tuple)
    cpdef object _give_permits(self, ServerConnection server)
