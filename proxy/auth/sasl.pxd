from proxy.auth.scram cimport ServerExchange

cdef class Sasl:
    cdef object _asking
    cdef ServerExchange _exchange
    cdef bint _first
    cdef readonly bytes client_key

    cdef object _respond_first(self, bytes body)
    cdef object _respond_final(self, bytes body)
    cdef object _verifier(self)
