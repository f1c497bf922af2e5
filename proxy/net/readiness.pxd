cdef class Watched:
    cpdef object ready(self, unsigned int events)

cdef class Readiness:
    cdef object _loop
    cdef list _watched
    cdef int _fd, _hurry
    cdef long _count, _hurried

    cpdef object add(self, int fd, Watched watched, bint writing)
    cpdef object again(self, int fd, bint writing, bint hurried)
    cpdef object hurry(self, int fd, bint writing, bint hurried)
    cpdef object remove(self, int fd, bint hurried)
