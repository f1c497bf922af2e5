from proxy.auth.exchange cimport Exchange, Step

cdef Step _IN

cdef class Trust(Exchange):
    cpdef Step start(self)
    cpdef Step respond(self, bytes body)
