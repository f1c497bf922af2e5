from proxy.auth.scram cimport Verifier

cdef class Step:
    cdef readonly bytes send
    cdef readonly bint done

cdef class Asking:
    cdef readonly str certificate_name, said_name, stored, user
    cdef readonly bint known
    cdef readonly bytes binding
    cdef public Verifier verifier

cdef class Exchange:
    cdef readonly Asking asking
    cdef public bytes client_key
    cdef readonly bint is_for_all

    cpdef bint is_slow(self) except -1
    cpdef Step start(self)
    cpdef Step respond(self, bytes body)
