cimport cython

from proxy.admission.accounts cimport Account, Seeker, UserAccount
from proxy.admission.guarantees cimport Guarantee
from proxy.admission.turns cimport Place, Standing, Turns

cdef class Line
cdef class Group

cdef class Queue:
    cpdef object head_moved(self)
    cpdef object place(self, Group group)
    cpdef object come_back(self, Line line, UserAccount user)

cdef class Line(Place):
    cdef public Account account
    cdef public Group group
    cdef public Queue queue
    cdef public Standing standing
    cdef public dict aside, seekers, users
    cdef list _heads

    cpdef object due_at(self, long long number)
    cpdef object take(self, UserAccount user)
    cpdef object push(self, UserAccount user, object number, object waiter)
    cpdef object push_front(self, UserAccount user, object number, object waiter)
    cdef object _of(self, UserAccount user)
    cdef object _with(self, UserAccount user, object waiters)
    cdef object _without(self, UserAccount user)
    cdef object _head(self, UserAccount user)
    @cython.locals(only=UserAccount)
    cpdef UserAccount first(self)

cdef class Group(Place):
    cdef public Guarantee guarantee
    cdef public Queue queue
    cdef public Turns lines

    cpdef object update(self)

cdef class Refused(Seeker):
    cdef public Line line
    cdef public Standing standing
    cdef public UserAccount user
