cimport cython

from proxy.client.applicants cimport Applicant
from proxy.client.arrival cimport Arrival, Reception
from proxy.net.clock cimport monotonic
from proxy.net.transport cimport SocketTransport
from proxy.stats cimport ProcessStats

cdef double _NEVER

@cython.locals(left=long)
cdef object _forget(dict counts, str host)

cdef class Acceptor(Reception):
    cdef public object _loop, _on_cancel, _timer
    cdef public ProcessStats _process
    cdef public dict _by_address, _by_tenant, _claims_from, _familiar, _present
    cdef public long _epoch, _pending
    cdef public double _timer_at

    @cython.locals(here=long, deadline=double, arrival=Arrival, transport=SocketTransport)
    cpdef object accept(self, int fd, str host, int port)
    cpdef Applicant recall(self, bytes packet)
    cpdef object remember(self, bytes packet, Applicant who)
    @cython.locals(host=str, claim=str, sources=dict)
    cpdef object arrived(self, Arrival arrival)
    cpdef object gone(self, Arrival arrival)
    @cython.locals(sources=dict, here=long, most=long, host=str)
    cpdef object claims(self, Arrival arrival, str tenant)
    @cython.locals(claims=long, most=long, enough=long)
    cdef object _claim_from(self, str host, long here)
    cpdef object expect(self, double deadline)
