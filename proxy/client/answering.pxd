cimport cython

from proxy.client.choosing cimport Choice
from proxy.client.linking cimport Linking
from proxy.protocol.statements cimport Statement
from proxy.protocol.tenancy cimport Tenancy

cdef int _QUERY, _PARSE, _BIND, _DESCRIBE, _EXECUTE, _CLOSE, _CALL

cdef class Chooser(Choice):
    cdef public bytes again

    @cython.locals(body=bytes)
    cpdef int hear(self, int kind, bytes frame, bint whole) except -1
    @cython.locals(session=Linking)
    cpdef bint _begins(self, bytes frame) except -1
    cpdef int _pass(self, bytes text) except -1
    @cython.locals(session=Linking, tenancy=Tenancy, out=list, rest=Py_ssize_t)
    cpdef int _query(self, bytes text) except -1
    @cython.locals(tenancy=Tenancy)
    cpdef bytes _perform(self, object step, object value, bint local, bint alone, bint simple)
    @cython.locals(session=Linking)
    cpdef Statement _statement(self, bytes name)
