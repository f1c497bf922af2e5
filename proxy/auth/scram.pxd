cpdef bytes _digest(bytes data)

cdef class Mac:
    cdef object _inner, _outer

cdef class ServerExchange:
    cdef object _verifier
    cdef bytes _binding, _first_bare, _gs2, _server_first
    cdef str _nonce
    cdef bint _offered_binding
    cdef readonly bytes client_key

cpdef bytes _hmac(bytes key, bytes data)
cpdef dict _attributes(bytes message)
cpdef bytes _xor(bytes one, bytes other)
