cimport cython

from proxy.admission.accounts cimport Account, Counter, UserAccount, give_all, take_all
from proxy.admission.guarantees cimport Guarantee
from proxy.admission.queue cimport may_wait
from proxy.protocol.state cimport State
from proxy.server.cleaning cimport Cleaning
from proxy.server.connection cimport ServerConnection
from proxy.server.deadlines cimport Deadlines
from proxy.server.link cimport Link

cdef class Pool(Cleaning):
    cdef object __weakref__
    cdef bint _serving
    cdef object _cluster
    cdef Deadlines _deadlines
    cdef public object accepted, claim, failed_with, introductions, key, login, pools, schema
    cdef Counter _of_cluster
    cdef public bint paused
    cdef public bytes client_key
    cdef public int generation
    cdef public Py_ssize_t sessions

    @cython.locals(account=Account, user=UserAccount, counters=tuple, server=ServerConnection, free=bint, guarantee=Guarantee, hurried=bint)
    cpdef ServerConnection acquire(self, Link waiter, double now)
    @cython.locals(delay=double, newest=ServerConnection, server=ServerConnection)
    cpdef ServerConnection _pick(self, State needs, double now)
    cpdef object checkin_at(self, ServerConnection server, double now, bint session_over=*)
    cdef bint _goes_on(self, ServerConnection server, double now) except -1
    @cython.locals(taken=tuple)
    cdef object _hand_over(self, ServerConnection server, double now)
    @cython.locals(account=Account, waited=double)
    cdef object _serve(self, ServerConnection server, Link waiter, tuple counters, double now)
    cpdef object _settle(self, ServerConnection server, str event, double now)
    @cython.locals(room=Py_ssize_t)
    cpdef object _grow(self)
    cdef object _refuse_at_once(self, Account account, UserAccount user, double now)
    @cython.locals(counters=tuple, entitled=bint, server=ServerConnection, taken=tuple, waiter=Link)
    cpdef object serve_at(self, double now)
