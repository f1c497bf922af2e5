# cython: language_level=3
"""Which sockets are ready: one epoll for all the plain sockets of a loop. The twin of `readiness.py`.

On a `Loop` it is this epoll that the process waits in, and libuv's is one of those that are watched. So what comes takes one
call to the kernel; two if libuv waited, and was told by its epoll to ask this one. While some are in a hurry the process waits in
theirs, and this one is watched there: it is the others that take a second call then. Before libuv would wait, it gives us its
turn (a `prepare` handle). We wait and tell as long as libuv has nothing to do by itself, and then see to it that it does not wait
either (an `idle` handle). Whether it has is what `uv_backend_timeout` says, and whether any of its handles was started
or stopped meanwhile: what was written to a transport of uvloop's own is sent by such a handle.
"""

from libc.errno cimport EINTR, errno
from libc.stdlib cimport free, malloc
from posix.unistd cimport close

import os

import uvloop.loop

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        unsigned int events
        epoll_data_t data
    enum:
        EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLLET
        EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_wait(int, epoll_event*, int, int)

cdef extern from *:
    """
    #include <dlfcn.h>
    static size_t (*uv_handle_size)(int);
    static int (*uv_backend_fd)(void *), (*uv_backend_timeout)(void *), (*uv_idle_stop)(void *);
    static int (*uv_prepare_init)(void *, void *), (*uv_idle_init)(void *, void *);
    static int (*uv_prepare_start)(void *, void (*)(void *)), (*uv_idle_start)(void *, void (*)(void *));
    static void (*uv_update_time)(void *), (*uv_close)(void *, void (*)(void *));
    #define FOUND(name) ((*(void **)&name = dlsym(library, #name)) != NULL)
    static int find_libuv(const char *path) {
        void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
        return library != NULL && FOUND(uv_handle_size) && FOUND(uv_backend_fd) && FOUND(uv_backend_timeout)
            && FOUND(uv_update_time) && FOUND(uv_prepare_init) && FOUND(uv_prepare_start) && FOUND(uv_idle_init)
            && FOUND(uv_idle_start) && FOUND(uv_idle_stop) && FOUND(uv_close);
    }
    """
    bint find_libuv(const char*)
    size_t uv_handle_size(int) nogil
    int uv_backend_fd(uv_loop*) nogil
    int uv_backend_timeout(uv_loop*) nogil
    void uv_update_time(uv_loop*) nogil
    int uv_prepare_init(uv_loop*, char*) nogil
    int uv_prepare_start(char*, void (*)(void*) noexcept) nogil
    int uv_idle_init(uv_loop*, char*) nogil
    int uv_idle_start(char*, void (*)(void*) noexcept) nogil
    int uv_idle_stop(char*) nogil
    void uv_close(char*, void (*)(void*) noexcept) nogil

cdef extern from "Python.h":
    void* PyCapsule_GetPointer(object, const char*) except NULL

IN = EPOLLIN
OUT = EPOLLOUT
END = EPOLLRDHUP | EPOLLHUP | EPOLLERR

cdef enum:
    MOST = 64
    FEW = 2
    SOME = 8  # in a hurry, while nobody else is ready
    TURN = 512
    MUCH = 2
    UV_IDLE = 6  # uv_handle_type
    UV_PREPARE = 9
    AHEAD = 16  # of a handle: whose it is

cdef bint _found = find_libuv(os.fsencode(uvloop.loop.__file__))


cdef object failure():
    return OSError(errno, os.strerror(errno))


cdef class Watched:
    cpdef object ready(self, unsigned int events):
        raise NotImplementedError

    cpdef object lost(self, object error):
        raise NotImplementedError


cdef class Readiness:
    def __init__(self, loop):
        self._loop = loop
        self._watched = []
        self._count = self._hurried = 0
        self._hurry = -1
        self._parted = []
        self._telling = self._others = False
        self._uv = NULL
        self._libuv = -1
        self._fd = opened()
        try:
            if _found and isinstance(loop, Loop):
                take_place(self)
            else:
                loop.add_reader(self._fd, self)
        except BaseException:
            close(self._fd)
            raise

    def __call__(self):
        turn(self, 0)

    cpdef object tell_parted(self):
        cdef Py_ssize_t at = 0
        cdef tuple parted
        while at < len(self._parted):
            parted = <tuple>self._parted[at]
            at += 1
            try:
                (<Watched>parted[0]).lost(parted[1])
            except Exception as bug:
                failed(self, bug)
        self._parted.clear()

    cpdef object add(self, int fd, Watched watched, bint writing):
        if fd >= len(self._watched):
            self._watched.extend([None] * (fd + 1 - len(self._watched)))
        self._count += 1
        self._watched[fd] = watched
        if control(self._fd, EPOLL_CTL_ADD, fd, writing) < 0:
            error = failure()
            forget(self, fd)
            raise error

    cpdef object again(self, int fd, bint writing, bint hurried):
        if control(self._hurry if hurried else self._fd, EPOLL_CTL_MOD, fd, writing) < 0:
            raise failure()

    cpdef object hurry(self, int fd, bint writing, bint hurried):
        if hurried and self._hurry < 0:
            self._hurry = opened()
            if self._uv is NULL:
                self._loop.add_reader(self._hurry, self)
            else:
                watch_epoll(self, self._hurry, self._fd)
        if control(self._fd if hurried else self._hurry, EPOLL_CTL_DEL, fd, False) < 0:
            raise failure()
        self._hurried += 1 if hurried else -1
        if control(self._hurry if hurried else self._fd, EPOLL_CTL_ADD, fd, writing) < 0:
            raise failure()

    cpdef object part(self, int fd, Watched watched, object error, bint hurried):
        if not (self._telling or self._parted):
            self._loop.call_soon(self.tell_parted)
        self._parted.append((watched, error))
        self._hurried -= hurried
        forget(self, fd)

    cpdef object remove(self, int fd, bint hurried):
        control(self._hurry if hurried else self._fd, EPOLL_CTL_DEL, fd, False)
        self._hurried -= hurried
        forget(self, fd)


class Loop(uvloop.Loop):
    def close(self):
        found = _all.get(self)
        if found is not None:
            give_back(found)
        super().close()


cdef int opened() except -1:
    cdef int fd = epoll_create1(EPOLL_CLOEXEC)
    if fd < 0:
        raise failure()
    return fd


cdef int watch_epoll(Readiness self, int outer, int fd) except -1:
    """The outer one tells of it as long as something is ready there."""
    cdef epoll_event event
    event.events = EPOLLIN
    event.data.fd = fd
    if epoll_ctl(outer, EPOLL_CTL_ADD, fd, &event) < 0:
        raise failure()
    if fd >= len(self._watched):
        self._watched.extend([None] * (fd + 1 - len(self._watched)))
    return 0


# --- in libuv's place -------------------------------------------------------------------------------


cdef int take_place(Readiness self) except -1:
    cdef uv_loop* uv = <uv_loop*>PyCapsule_GetPointer(uvloop.loop.libuv_get_loop_t_ptr(self._loop), NULL)
    self._libuv = uv_backend_fd(uv)
    watch_epoll(self, self._fd, self._libuv)
    self._prepare, self._idle = handle(self, UV_PREPARE), handle(self, UV_IDLE)
    uv_prepare_init(uv, self._prepare)
    uv_idle_init(uv, self._idle)
    uv_prepare_start(self._prepare, prepare)
    self._uv = uv
    return 0


cdef object give_back(Readiness self):
    if self._uv is not NULL:
        self._uv = NULL
        uv_close(self._prepare, closed)
        uv_close(self._idle, closed)


cdef char* handle(Readiness self, int kind) except NULL:
    """Its data stay empty, of which uvloop would think that they are its own."""
    cdef char* room = <char*>malloc(AHEAD + uv_handle_size(kind))
    if room is NULL:
        raise MemoryError
    (<void**>room)[0] = <void*>self
    (<void**>(room + AHEAD))[0] = NULL
    return room + AHEAD


cdef void closed(void* handle) noexcept:
    free(<char*>handle - AHEAD)


cdef void idle(void* handle) noexcept:
    pass


cdef void prepare(void* handle) noexcept with gil:
    cdef Readiness self = <Readiness>(<void**>(<char*>handle - AHEAD))[0]
    uv_idle_stop(self._idle)
    try:
        turn(self, uv_backend_timeout(self._uv))
    except BaseException as bug:
        failed(self, bug)
    if self._uv is not NULL:
        uv_idle_start(self._idle, idle)


# ----------------------------------------------------------------------------------------------------


cdef int turn(Readiness self, int timeout) except -1:
    """What comes within the timeout is told, and what comes meanwhile; in libuv's place, as long as that has nothing to do."""
    cdef int count, most, others, left = TURN
    cdef unsigned int active = 0 if self._uv is NULL else self._uv.active_handles
    self._wanted = False
    while left > 0:
        self._telling = True
        if self._hurried:
            most = FEW if self._others else SOME
            self._others = self._uv is NULL  # else it is told
            count = tell(self, self._hurry, most, timeout)
            if (self._others or count == most) and self._fd >= 0:
                others = tell(self, self._fd, FEW, 0)
                self._others = others > 0
                count += others
        else:
            count = tell(self, self._fd, MOST, timeout)
        if self._parted:
            self.tell_parted()
        self._telling = False
        if self._uv is not NULL:
            if self._wanted or self._uv.active_handles != active:
                return 0
            uv_update_time(self._uv)
            timeout = uv_backend_timeout(self._uv)
            if timeout:
                continue
        if count < MUCH or self._fd < 0:
            return 0
        left -= count
    return 0


cdef int tell(Readiness self, int fd, int most, int timeout) except -1:
    """How many were told what is ready. Waits for as many milliseconds, for ever if that is less than 0."""
    cdef epoll_event events[MOST]
    cdef int i, count
    cdef object found
    if timeout:
        with nogil:
            count = epoll_wait(fd, events, most, timeout)
    else:
        count = epoll_wait(fd, events, most, 0)
    if count < 0:
        if errno == EINTR:
            return 0
        raise failure()
    for i in range(count):
        fd = events[i].data.fd
        found = self._watched[fd]
        if found is not None:
            try:
                (<Watched>found).ready(events[i].events)
            except Exception as bug:
                failed(self, bug)
        elif fd == self._fd:
            self._others = True
        elif fd == self._libuv:
            self._wanted = True
    return count


cdef object failed(Readiness self, object bug):
    self._loop.call_exception_handler({"message": "a socket's turn failed", "exception": bug})


cdef int control(int epoll, int what, int fd, bint writing) noexcept:
    cdef epoll_event event
    event.events = EPOLLIN | EPOLLRDHUP | EPOLLET
    if writing:
        event.events |= EPOLLOUT
    event.data.fd = fd
    return epoll_ctl(epoll, what, fd, &event)


cdef object forget(Readiness self, int fd):
    global asked, known
    self._watched[fd] = None
    self._count -= 1
    if not self._count:
        asked = known = None
        del _all[self._loop]
        if self._uv is NULL:
            self._loop.remove_reader(self._fd)
            if self._hurry >= 0:
                self._loop.remove_reader(self._hurry)
        give_back(self)
        close(self._fd)
        self._fd = -1
        if self._hurry >= 0:
            close(self._hurry)


_all = {}
cdef object asked = None  # the loop whose Readiness was asked for last, while that exists
cdef Readiness known = None


cpdef Readiness readiness(object loop):
    global asked, known
    if known is not None and loop is asked:
        return known
    found = _all.get(loop)
    if found is None:
        found = _all[loop] = Readiness(loop)
    asked, known = loop, found
    return found
