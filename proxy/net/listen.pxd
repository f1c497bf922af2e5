from proxy.net.readiness cimport Readiness, Watched

cdef class Listener(Watched):
    cdef public object _again, _sock
    cdef readonly object family
    cdef readonly int port
    cdef object _accepted, _inode, _loop, _path
    cdef bint _closed
    cdef double _quiet_until
    cdef Readiness _readiness

    cpdef object ready(self, unsigned int events)
    cpdef object _watch(self)
    cdef object _unwatch(self)
