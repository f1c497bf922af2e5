cimport cython

from proxy.admission.accounts cimport Account, Seeker, UserAccount
from proxy.admission.guarantees cimport Guarantee
from proxy.admission.turns cimport Place, Standing, Turns

cdef Py_ssize_t _GAP

cdef class Line
cdef class Group

cdef class Queue:
    cpdef object head_moved(self)
    cpdef object place(self, Group group)
    cpdef object come_back(self, Line line, UserAccount user)

cdef class Waiters:
    cdef list _numbered
    cdef Py_ssize_t _taken

    cpdef Py_ssize_t count(self) except -1
    cpdef object push(self, object number, object waiter)
    cpdef object push_front(self, object number, object waiter)
    cpdef tuple first(self)
    @cython.locals(at=Py_ssize_t, first=tuple, numbered=list)
    cpdef object take(self)
    @cython.locals(at=Py_ssize_t)
    cpdef bint remove(self, object waiter) except -1

cdef class Line(Place):
    cdef public Account account
    cdef public Group group
    cdef public Queue queue
    cdef public Standing standing
    cdef public dict aside, seekers, users
    cdef list _heads
    cdef UserAccount _user
    cdef Waiters _waiters

    cpdef object due_at(self, long long number)
    @cython.locals(waiters=Waiters)
    cpdef object take(self, UserAccount user)
    @cython.locals(waiters=Waiters)
    cpdef object push(self, UserAccount user, object number, object waiter)
    cpdef object push_front(self, UserAccount user, object number, object waiter)
    @cython.locals(waiters=Waiters)
    cdef Waiters _of(self, UserAccount user)
    cdef object _with(self, UserAccount user, Waiters waiters)
    @cython.locals(waiters=Waiters)
    cdef Waiters _without(self, UserAccount user)
    @cython.locals(waiters=Waiters, first=tuple)
    cdef object _head(self, UserAccount user)
    @cython.locals(only=UserAccount, first=tuple, waiters=Waiters)
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
