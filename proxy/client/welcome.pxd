cimport cython

from proxy.admission.accounts cimport Counter, take_all
from proxy.client.applicants cimport Login
from proxy.client.entrance cimport Entrance, entrance, hello
from proxy.client.placing cimport take_place
from proxy.client.plane cimport Plane
from proxy.client.session cimport Session
from proxy.net.stream cimport LoginStream
from proxy.server.connection cimport ServerConnection

cdef class Usher:
    cdef Plane _plane
    cdef object _otherwise

cpdef object count_refusal(Plane plane, Login login, object error)

@cython.locals(found=Entrance, full=Counter, session=Session)
cpdef Session welcome_at_once(Plane plane, Login login, LoginStream stream)

@cython.locals(plane=Plane, rest=bytes)
cdef object _begin(Session session, ServerConnection server, bytes told, LoginStream stream)

cdef Entrance _find(Plane plane, Login login, LoginStream stream)

@cython.locals(session=Session)
cdef Session _session(Plane plane, Login login, Entrance found, LoginStream stream)
