cdef class Link:
    cdef public object limits

    cpdef object replies(self, bytes data)
    cpdef object server_ready(self)
