cimport cython

from proxy.auth.exchange cimport Asking, Exchange, Step
from proxy.auth.octets cimport request
from proxy.auth.scram cimport ServerExchange, Verifier
from proxy.wire.pieces cimport end_of, piece, word

cdef Py_ssize_t _LONGEST
cdef bytes _IN, _PLAIN_NAME, _PLUS_NAME
cdef Step _OFFER, _OFFER_BINDING

cdef class Sasl(Exchange):
    cdef ServerExchange _exchange

    @cython.locals(asking=Asking)
    cpdef bint is_slow(self) except -1
    cpdef Step start(self)
    @cython.locals(asking=Asking, said=bytes)
    cpdef Step respond(self, bytes body)
    @cython.locals(asking=Asking, at=Py_ssize_t, end=Py_ssize_t, mechanism=bytes, plus=bint)
    cdef Step _respond_first(self, bytes body)
    @cython.locals(asking=Asking)
    cdef Verifier _verifier(self)
