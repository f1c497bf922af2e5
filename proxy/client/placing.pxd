cimport cython

from proxy.client.conversation cimport Conversation
from proxy.client.plane cimport Plane
from proxy.server.connection cimport ServerConnection
from proxy.server.pool cimport Pool

@cython.locals(plane=Plane, pool=Pool)
cdef object _place(Conversation session, object tenant)
cpdef object take_place(Conversation session, object found)
@cython.locals(server=ServerConnection)
cpdef object become(Conversation session, object tenant, object let_go)
