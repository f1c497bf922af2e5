cimport cython

from proxy.client.arrival cimport Arrival
from proxy.net.transport cimport SocketTransport

cdef double _NEVER

cdef class Acceptor:
    cdef public object options, tls, registry, logged_in
    cdef public object _familiar, _loop, _on_cancel, _process, _timer
    cdef public dict _by_address, _by_tenant, _present
    cdef public long _epoch, _pending
    cdef public double _timer_at

    @cython.locals(here=long, deadline=double, arrival=Arrival, transport=SocketTransport)
    cpdef object accept(self, int fd, str host, int port)
    cpdef object recall(self, bytes packet)
    cpdef object arrived(self, Arrival arrival)
    cpdef object gone(self, Arrival arrival)
    cpdef object expect(self, double deadline)
