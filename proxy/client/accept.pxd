cimport cython

from proxy.client.applicants cimport Applicant
from proxy.client.arrival cimport Arrival, Reception
from proxy.net.clock cimport monotonic
from proxy.net.transport cimport SocketTransport
from proxy.stats cimport ProcessStats

cdef double _NEVER

cdef class Acceptor(Reception):
    cdef public object _loop, _on_cancel, _timer
    cdef public ProcessStats _process
    cdef public dict _familiar, _by_address, _by_tenant, _present
    cdef public long _epoch, _pending
    cdef public double _timer_at

    @cython.locals(here=long, deadline=double, arrival=Arrival, transport=SocketTransport)
    cpdef object accept(self, int fd, str host, int port)
    cpdef Applicant recall(self, bytes packet)
    cpdef object remember(self, bytes packet, Applicant who)
    cpdef object arrived(self, Arrival arrival)
    cpdef object gone(self, Arrival arrival)
    @cython.locals(sources=dict, here=long, most=long)
    cpdef object claims(self, Arrival arrival, str tenant)
    cpdef object expect(self, double deadline)
