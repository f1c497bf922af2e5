cimport cython

from proxy.admission.accounts cimport Account, Counter, Seeker
from proxy.admission.turns cimport Rota

cdef class Kept

cdef class Guarantee:
    cdef public Counter permits
    cdef public Py_ssize_t kept, needed, of_those, used
    cdef public double of_share
    cdef public dict groups, keepers
    cdef object _lender
    cdef bint _entitled
    cdef Py_ssize_t _most
    cdef double _since
    cdef list _wishes

    cpdef object use(self, Py_ssize_t count)
    cpdef object join(self, object group)
    cpdef object leave(self, object group)
    @cython.locals(kept=Py_ssize_t, more=Py_ssize_t, keeper=Kept, entitled=bint)
    cpdef object changed(self)
    cdef Py_ssize_t _wanted(self) except -1
    @cython.locals(permits=Counter, wanted=Py_ssize_t, before=Py_ssize_t, missing=Py_ssize_t)
    cpdef object _claim(self)
    cdef object _ask(self, Py_ssize_t missing)

cdef class Kept:
    cdef public Py_ssize_t count
    cdef dict _asked
    cdef Guarantee _last
    cdef double _last_at

    cdef object _note(self)
    cpdef object ask(self, Guarantee guarantee, double now)

@cython.locals(share=double, amount=Py_ssize_t, guarantee=Guarantee)
cpdef Guarantee of(Rota rota, Account account, Py_ssize_t most)
