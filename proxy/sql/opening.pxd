cimport cython

cdef bytes _MARKS
cdef int _OPENS, _IS_SPACE, _SELECTED, _S, _E, _L

@cython.locals(size=Py_ssize_t, first=int, at_list=Py_ssize_t)
cpdef bint works(bytes data, Py_ssize_t at) except -1

cdef class Openings:
    cdef public str guc
    cdef object _kept

    cpdef object of(self, bytes text)
