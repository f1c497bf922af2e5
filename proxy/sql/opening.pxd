cimport cython

cdef bytes _SPACE, _FIRST, _SELECTED
cdef int _S, _E, _L

@cython.locals(size=Py_ssize_t, first=int, at_list=Py_ssize_t)
cpdef bint works(bytes data, Py_ssize_t at) except -1

cdef class Openings:
    cdef public str guc
    cdef object _kept

    cpdef object of(self, bytes text)
