cimport cython

from proxy.server.link cimport Link

@cython.final
cdef class Line:
    cdef public double limit, notice
    cdef public Link first, last, untold

    cpdef object push(self, Link waiter)
    @cython.locals(ahead=Link, behind=Link, end=Link, untold=Link)
    cpdef object insert(self, Link waiter, bint told)
    cdef object _link(self, Link waiter, Link ahead, Link behind)
    @cython.locals(ahead=Link, behind=Link)
    cpdef object remove(self, Link waiter)

@cython.final
cdef class Deadlines:
    cdef dict _lines
    cdef Line _latest

    @cython.locals(limit=double, line=Line, notice=double)
    cpdef object begin(self, Link waiter, object pool)
    cdef Line _line(self, double notice, double limit)
    @cython.locals(line=Line)
    cpdef object end(self, Link waiter)
