from proxy.server.connection cimport ServerConnection
from proxy.server.lending cimport Lending

cdef class Cleaning(Lending):
    cdef object _options
    cdef double _check_delay, _lifetime
    cdef public double last_used
    cdef public object mode

    cpdef object _settle(self, ServerConnection server, str event, double now)
