cdef class Stage:
    cdef public dict following
    cdef public str value

cpdef Stage step(str what, Stage stage, str event)
