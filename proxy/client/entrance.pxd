from proxy.client.applicants cimport Login
from proxy.client.conversation cimport Given
from proxy.client.placing cimport Place
from proxy.client.plane cimport Plane
from proxy.net.stream cimport LoginStream
from proxy.protocol.state cimport State
from proxy.server.pool cimport Pool
from proxy.wire.pieces cimport key_between

cimport cython

cdef bytes _READY

cdef class Entrance(Given):
    cdef public Place place
    cdef public State state, told
    cdef public bytes statuses
    cdef State _asked
    cdef tuple _known
    cdef Pool _pool
    cdef Py_ssize_t _only_at_start

    cpdef bint holds(self, Plane plane) except -1
    @cython.locals(known=tuple)
    cpdef bint introduced(self, Plane plane) except -1

@cython.locals(found=Entrance, made=Entrance)
cpdef Entrance entrance(Plane plane, Login login, LoginStream stream)
cpdef bytes hello(bytes statuses, long pid, bytes key)
