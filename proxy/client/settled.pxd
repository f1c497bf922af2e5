from proxy.protocol.tenancy cimport Tenancy

cdef class Settled:
    cdef public object _session, begun
    cdef public Tenancy tenancy
    cdef public set ends
    cdef public bytes prompt
    cdef public bint _reset, _served, batch, calm, over, working

    cpdef object refusal(self, bytes text)
    cpdef object step(self, bytes text)
    cpdef object binding(self, object statement, bytes name, bytes frame, bint whole)
    cpdef object executing(self, bytes portal)
    cpdef object ended(self, object server)
    cpdef object _end(self, object server)
