cdef class Watched:
    cpdef object ready(self, unsigned int events)

cdef class Readiness:
    cdef object _loop
    cdef list _watched
    cdef int _fd
    cdef long _count

    cpdef object add(self, int fd, Watched watched, bint writing)
    cpdef object again(self, int fd, bint writing)
    cpdef object remove(self, int fd)
