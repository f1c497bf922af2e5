cimport cython

from proxy.admission.bucket cimport Bucket
from proxy.stats cimport TenantStats

@cython.final
cdef class Gate:
    cdef Bucket _alone
    cdef object _bytes, _queries, _quota, _quota_kept, _slices
    cdef str _name
    cdef list _shared
    cdef double _patience, _slow_at, _utc, _wait_limit
    cdef long long _bytes_seen
    cdef TenantStats _stats
    cdef public dict waiting
    cdef public object bell, ring

    cpdef object spend(self, long count, double now)
    cpdef bint take(self, double now) except -1
    cpdef bint ask(self, double now) except -1
