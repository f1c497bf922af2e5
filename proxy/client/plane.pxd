cimport cython

from proxy.registry.memory cimport Registry
from proxy.sql.verdict cimport Judge
from proxy.wire.pieces cimport piece

cdef long _RANDOM

cdef class Plane:
    cdef public dict _keys, places
    cdef public object _openings, _openings_of, _way_of, accounts, answers, clients, later, logging_in, options, pools, process
    cdef public bint draining
    cdef public Judge judge
    cdef public int number
    cdef public long placed_in
    cdef long _way
    cdef bytes _random
    cdef Py_ssize_t _drawn

    @cython.locals(random=bytes)
    cpdef tuple new_key(self, int minor, long pid=*)
    cdef long _another(self) except -1
    @cython.locals(at=Py_ssize_t)
    cdef bytes _draw(self, Py_ssize_t count)
    cdef long _word(self, bytes random) except -1
    cpdef object enter(self, object session)
    cdef object _know(self, object member)
    cpdef object leave(self, object member)
    cdef public Registry registry
    cdef public set keeping_sequences, relays, sessions
