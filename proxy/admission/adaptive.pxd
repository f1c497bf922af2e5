cimport cython

cdef int _LAST, _LEARNT
cdef double _A_STEP, _FURTHEST

cdef class _Kind:
    cdef public double baseline
    cdef public list first
    cdef public int balance, counted

    cpdef object begin(self, double slowed)
    cpdef object learn(self)

cdef class Strain:
    cdef readonly dict _kinds
    cdef object _whose
    cdef _Kind _kind
    cdef list _counted, _learnt, _octaves
    cdef double _baselines
    cdef int _running
    cdef public bint pressed, resting

    @cython.locals(kind=_Kind, taken=double, more=double, place=double, at=int)
    cpdef object record(self, object whose, double seconds)
    cdef _Kind _of(self, object whose)
