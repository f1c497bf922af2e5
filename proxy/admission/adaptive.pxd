cimport cython

cdef int _AN_OCTAVE, _HIGHEST, _LEARNT, _MIDDLE
cdef double _SHORTEST
cdef double[8] _WITHIN

@cython.final
cdef class _Kind:
    cdef public double baseline, usual
    cdef public list first
    cdef public int balance, counted

    cpdef object move(self, double baseline)
    cpdef object begin(self, double slowed)
    cpdef object learn(self)

@cython.final
cdef class Strain:
    cdef readonly dict _kinds
    cdef object _whose
    cdef _Kind _kind
    cdef list _counted, _learnt
    cdef long[64] _octaves
    cdef double _baselines
    cdef int _running
    cdef public bint pressed, resting

    @cython.locals(kind=_Kind, ratio=double, at=int, step=int)
    cpdef object record(self, object whose, double seconds)
    cdef object _learn(self, _Kind kind, double seconds)
    cdef _Kind _of(self, object whose)
