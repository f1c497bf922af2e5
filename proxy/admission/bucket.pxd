cimport cython

cdef double _SLACK

@cython.final
cdef class Bucket:
    cdef double _base, _seen, _since, _spent
    cdef public double burst, rate

    @cython.locals(level=double)
    cpdef double level(self, double now) except? -1
    cpdef object spend(self, double count, double now)
    cpdef bint take(self, double now, double count=*) except -1
    cpdef double wait(self, double now, double count=*) except? -1

@cython.final
cdef class Quota:
    cdef double _spent, _utc
    cdef long _day
    cdef public double burst, rate

    cpdef double level(self, double now) except? -1
    cpdef object spend(self, double count, double now)
    cpdef bint take(self, double now) except -1
    cpdef double wait(self, double now, double count=*) except? -1

cpdef double burst_of(double rate, double burst) except? -1
