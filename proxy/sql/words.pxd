cimport cython

cdef bint _COMPILED
cdef bytes _MARKS, _SPACE
cdef int _DO

@cython.locals(size=Py_ssize_t, key=int)
cdef bint _may_be_verb(bytes text, Py_ssize_t at) except -1

@cython.locals(size=Py_ssize_t, at=Py_ssize_t, before=int, last=int, rule=int, following=int, marks=bytes)
cpdef bint suspicious(bytes text) except -1

cpdef bint plain(bytes text) except -1
