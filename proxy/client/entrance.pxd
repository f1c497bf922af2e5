from proxy.admission.accounts cimport Account, UserAccount
from proxy.client.plane cimport Plane
from proxy.net.stream cimport LoginStream
from proxy.protocol.state cimport State
from proxy.server.pool cimport Pool
from proxy.wire.encode cimport backend_key_data

cimport cython

cdef bytes _READY

cdef class Entrance:
    cdef public Account account
    cdef public UserAccount user_account
    cdef public object limits, place, tenant
    cdef public tuple permits
    cdef public long epoch
    cdef public State state, told
    cdef public bytes statuses
    cdef State _asked
    cdef tuple _known
    cdef Pool _pool
    cdef Py_ssize_t _only_at_start

    cpdef bint holds(self, Plane plane) except -1
    @cython.locals(known=tuple)
    cpdef bint introduced(self, Plane plane) except -1

cpdef Entrance entrance(Plane plane, object login, LoginStream stream)
cpdef bytes hello(bytes statuses, long pid, bytes key)
