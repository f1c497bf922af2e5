# cython: language_level=3
"""Which sockets are ready: one epoll for all the plain sockets of a loop. The twin of `readiness.py`."""

from libc.errno cimport EINTR, errno
from posix.unistd cimport close

import os

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

IN = EPOLLIN
OUT = EPOLLOUT
END = EPOLLRDHUP | EPOLLHUP | EPOLLERR

cdef enum:
    MOST = 64
    FEW = 2
    TURN = 512
    MUCH = 2


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
        self._telling = False
        self._fd = opened(self)

    def __call__(self):
        cdef int count, left = TURN
        while left > 0:
            self._telling = True
            if self._hurried:
                count = tell(self, self._hurry, FEW)
                if self._fd >= 0:
                    count += tell(self, self._fd, FEW)
            else:
                count = tell(self, self._fd, MOST)
            if self._parted:
                self.tell_parted()
            self._telling = False
            if count < MUCH or self._fd < 0:
                return
            left -= count

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
            self._hurry = opened(self)
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


cdef int opened(Readiness self) except -1:
    cdef int fd = epoll_create1(EPOLL_CLOEXEC)
    if fd < 0:
        raise failure()
    try:
        self._loop.add_reader(fd, self)
    except BaseException:
        close(fd)
        raise
    return fd


cdef int tell(Readiness self, int fd, int most) except -1:
    """How many were told what is ready."""
    cdef epoll_event events[MOST]
    cdef int i, count = epoll_wait(fd, events, most, 0)
    cdef object found
    if count < 0:
        if errno == EINTR:
            return 0
        raise failure()
    for i in range(count):
        found = self._watched[events[i].data.fd]
        if found is not None:
            try:
                (<Watched>found).ready(events[i].events)
            except Exception as bug:
                failed(self, bug)
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
        dismiss(self, self._fd)
        self._fd = -1
        if self._hurry >= 0:
            dismiss(self, self._hurry)


cdef object dismiss(Readiness self, int fd):
    self._loop.remove_reader(fd)
    close(fd)


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
