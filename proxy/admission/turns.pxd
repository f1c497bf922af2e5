cimport cython

cdef double _ROUNDS, _MAX_DEBT, _SHORTEST, _NEWS

cdef class Turns
cdef class Rota

cdef class Place:
    cdef public long long round
    cdef public Turns turns
    cdef public Place after, before

    cpdef object due_at(self, long long number)

@cython.final
cdef class Turns:
    cdef public Py_ssize_t size
    cdef dict _rings
    cdef list _order
    cdef Place _alone

    cpdef object add(self, Place place, long long number, bint first=*)
    @cython.locals(ring=Place, before=Place, after=Place)
    cdef object _put(self, Place place, bint first)
    @cython.locals(before=Place, after=Place)
    cdef object _pull(self, Place place)
    cpdef object remove(self, Place place)
    cpdef object move(self, Place place, long long number)
    cpdef object put_last(self, Place place)
    @cython.locals(ring=Place, place=Place, order=list, rings=dict)
    cpdef object first(self)

@cython.final
cdef class Crowd:
    cdef public Py_ssize_t waiting

@cython.final
cdef class Standing:
    cdef public double due, part
    cdef public dict places
    cdef public Rota rota

    cpdef object begin(self)
    cpdef object served(self, Place place)
    @cython.locals(before="long long", number="long long", due=double, most=double, place=Place)
    cpdef object charge(self, double seconds, long weight)

@cython.final
cdef class Rota:
    cdef dict _standings
    cdef object _whose
    cdef Standing _last
    cdef public dict guarantees
    cdef public Crowd crowd
    cdef public object name
    cdef public double now
    cdef public Py_ssize_t waiting

    @cython.locals(standing=Standing)
    cpdef Standing standing(self, object whose)
    cpdef object serve(self, Standing standing)

cpdef double expected(double before, double seconds) except -1
