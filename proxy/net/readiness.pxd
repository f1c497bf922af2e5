cdef struct uv_loop:  # as far as uv.h says what is in it
    void* data
    unsigned int active_handles

cdef class Watched:
    cpdef object ready(self, unsigned int events)
    cpdef object lost(self, object error)

cdef class Readiness:
    cdef object _loop
    cdef list _parted, _watched
    cdef bint _others, _telling, _wanted
    cdef char* _idle
    cdef char* _prepare
    cdef int _fd, _hurry, _libuv
    cdef uv_loop* _uv
    cdef long _count, _hurried

    cpdef object tell_parted(self)
    cpdef object add(self, int fd, Watched watched, bint writing)
    cpdef object again(self, int fd, bint writing, bint hurried)
    cpdef object hurry(self, int fd, bint writing, bint hurried)
    cpdef object part(self, int fd, Watched watched, object error, bint hurried)
    cpdef object remove(self, int fd, bint hurried)

cpdef Readiness readiness(object loop)
