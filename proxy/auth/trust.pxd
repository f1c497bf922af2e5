cdef class Trust:
    cdef public object _asking

    cpdef object start(self)
    cpdef object respond(self, bytes body)
