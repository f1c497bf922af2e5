cimport cython

from proxy.admission.accounts cimport Account, Counter, Seeker, TierAccount, UserAccount, take_all
from proxy.admission.lines cimport Group, Line, Queue
from proxy.admission.turns cimport Crowd, Place, Rota, Standing, Turns

cdef long long _ENTITLED

cdef class FairQueue(Queue):
    cdef public Rota rota
    cdef public Seeker claim
    cdef public Py_ssize_t most, size
    cdef dict _groups, _lines
    cdef Line _recent
    cdef Turns _turns
    cdef object _on_free
    cdef long long _first, _last

    @cython.locals(first=Place, line=Line)
    cpdef object number(self, Rota rota)
    @cython.locals(claim=Seeker)
    cpdef object head_moved(self)
    @cython.locals(line=Line)
    cpdef object push(self, Account account, UserAccount user, object waiter)
    @cython.locals(line=Line)
    cpdef object push_front(self, Account account, UserAccount user, object waiter)
    @cython.locals(first=Place, line=Line, account=Account, user=UserAccount, full=Counter)
    cpdef tuple take(self, bint entitled=*)
    @cython.locals(line=Line, standing=Standing)
    cdef Line _line(self, Account account)
    cdef object _tidy(self, Line line)
    @cython.locals(number="long long", group=Group)
    cdef object _enter(self, Line line, bint first=*)
    cdef object _leave(self, Line line)
    @cython.locals(line=Line, number="long long")
    cpdef object place(self, Group group)
    @cython.locals(rota=Rota, tier=TierAccount)
    cdef object _count(self, Account account, UserAccount user, Py_ssize_t by)
    cpdef object come_back(self, Line line, UserAccount user)

@cython.locals(tier=TierAccount)
cpdef object may_wait(Account account, UserAccount user)
