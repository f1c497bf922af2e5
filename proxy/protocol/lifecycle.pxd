cimport cython

@cython.final
cdef class Stage:
    cdef public dict following
    cdef public str last, value
    cdef public Stage after

@cython.locals(following=Stage)
cpdef Stage step(str what, Stage stage, str event)
