# What OpenSSL, LibreSSL and BoringSSL call SHA256_CTX takes 112 of these 128 bytes.
ctypedef struct Hash:
    unsigned long long room[16]

cpdef bytes digest(bytes data)

cdef class Mac:
    cdef Hash _inner, _outer
    cdef object _inner_object, _outer_object

    cpdef bytes of(self, bytes data)
