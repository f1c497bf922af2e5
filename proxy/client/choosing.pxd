cimport cython

from proxy.client.linking cimport Linking
from proxy.client.settled cimport Settled
from proxy.protocol.tenancy cimport Tenancy
from proxy.server.connection cimport ServerConnection

cdef class Choice(Settled):
    cdef public object begin
    cdef public str sought
    cdef public bytes _error_before
    cdef public dict portals
    cdef public bint _cancelled, _stale
    cdef public long quiet

    @cython.locals(session=Linking, tenancy=Tenancy)
    cpdef bint turn(self) except -1
    cpdef bint can(self, object step) except -1
    cpdef object _find(self, object value)
    cpdef object _check(self, object tenant)
    @cython.locals(session=Linking)
    cpdef object _check_right(self, object tenant)
    @cython.locals(tenancy=Tenancy, session=Linking)
    cpdef object settle(self)
    @cython.locals(session=Linking)
    cpdef object _attend(self)
    @cython.locals(text=bytes)
    cpdef bytes _begin_on(self, ServerConnection server, list texts)
    @cython.locals(tenancy=Tenancy)
    cpdef object _end(self, object server)
