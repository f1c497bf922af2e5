cimport cython

from proxy.server.link cimport Link

cdef class Deadlines:
    cdef dict _limits, _notices

    cpdef object begin(self, Link waiter, object pool)
    cpdef object end(self, Link waiter)

cpdef object _enter(dict lines, object seconds, Link waiter, object pool)
