cimport cython

from proxy.admission.accounts cimport Account, Counter, Seeker
from proxy.admission.turns cimport Rota

cdef class Kept

@cython.final
cdef class Guarantee:
    cdef public Counter permits
    cdef public Py_ssize_t claimed, kept, needed, of_those, used
    cdef public double of_share
    cdef public dict groups, keepers
    cdef public object whose
    cdef Kept _keeper
    cdef object _lender
    cdef bint _entitled
    cdef Py_ssize_t _most
    cdef double _since
    cdef list _wishes

    cpdef object use(self, Py_ssize_t count)
    cpdef object join(self, object group)
    cpdef object leave(self, object group)
    cpdef object claim(self, Py_ssize_t count)
    cdef object _kept_by(self)
    @cython.locals(allowance=Py_ssize_t, kept=Py_ssize_t, needed=Py_ssize_t, used=Py_ssize_t)
    cpdef object changed(self)
    @cython.locals(keeper=Kept, more=Py_ssize_t)
    cdef object _keep(self, Py_ssize_t kept)
    cdef object _tell(self)
    cdef Py_ssize_t _wanted(self) except -1
    @cython.locals(permits=Counter, wanted=Py_ssize_t, before=Py_ssize_t, missing=Py_ssize_t)
    cpdef object _claim(self)
    cdef object _ask(self, Py_ssize_t missing)

@cython.final
cdef class Kept:
    cdef public Py_ssize_t count
    cdef dict _asked
    cdef Guarantee _last
    cdef double _last_at

    cdef object _note(self)
    @cython.locals(guarantee=Guarantee, last=Guarantee)
    cpdef Guarantee asked(self, Rota rota, Account account, Py_ssize_t most, double now)
    cpdef object ask(self, Guarantee guarantee, double now)

@cython.locals(share=double, amount=Py_ssize_t, guarantee=Guarantee)
cpdef Guarantee of(Rota rota, Account account, Py_ssize_t most)
