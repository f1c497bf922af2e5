cimport cython

from proxy.auth cimport octets
from proxy.auth.mac cimport Mac, digest
from proxy.wire.pieces cimport end_of, piece

cdef int _AUTHORIZATION, _BOUND, _COMMA, _EQUALS, _EXTENSION, _NAME, _NONCE, _NOT, _PROOF, _YES
cdef Py_ssize_t _KEY_LENGTH
cdef bytes _END_POINT, _UNBOUND, _UNOFFERED

cdef class Verifier:
    cdef readonly bytes asks, salt, server_key, stored_key
    cdef readonly Mac client_signature, server_signature
    cdef readonly object iterations

cdef object _check(bytes message)
cdef Py_ssize_t _value(bytes message, Py_ssize_t at, int name) except -1
cdef Py_ssize_t _any_value(bytes message, Py_ssize_t at) except -1

cdef class ServerExchange:
    cdef Verifier _verifier
    cdef bytes _binding, _bound, _first_bare, _nonce, _server_first
    cdef readonly bytes client_key

    @cython.locals(at=Py_ssize_t, bare=Py_ssize_t, end=Py_ssize_t, own=bytes, said=bytes)
    cpdef bytes first(self, bytes message, bint plus=*)
    @cython.locals(flag=int, end=Py_ssize_t)
    cdef Py_ssize_t _flag(self, bytes message, bint plus) except -1
    @cython.locals(at=Py_ssize_t, end=Py_ssize_t, stop=Py_ssize_t, nonce=bytes, proof=bytes)
    cpdef bytes final(self, bytes message)
    @cython.locals(verifier=Verifier, client_key=bytes)
    cdef bytes _prove(self, bytes said, bytes proof)

cpdef bytes _hmac(bytes key, bytes data)
cpdef dict _attributes(bytes message)
