cimport cython

from proxy.client.conversation cimport Conversation
from proxy.client.plane cimport Plane
from proxy.protocol.state cimport State
from proxy.server.connection cimport ServerConnection
from proxy.server.pool cimport Pool

cdef class Place:
    cdef readonly Pool pool
    cdef readonly State startup
    cdef readonly object rules
    cdef readonly bint temp_first

@cython.locals(plane=Plane, found=Place)
cdef Place _place(Conversation session, object tenant)
cpdef object take_place(Conversation session, Place found)
@cython.locals(server=ServerConnection)
cpdef object become(Conversation session, object tenant, object let_go)
