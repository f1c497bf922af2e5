# cython: language_level=3
"""Accept, receive and send on non-blocking sockets, without a Python socket object in between.

The twin of `sockets.py`. The interpreter lock is kept: none of them ever waits. `recv` and `send` pass by what the kernel
does for files, which `read` and `write` do not. They are asked of the kernel by number: in a process with several threads the
C library's functions turn a thread's cancellation on and off around each, which nobody here wants (90 instructions a call).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno

import os

cdef extern from "sys/socket.h" nogil:
    ctypedef unsigned int socklen_t
    ctypedef unsigned short sa_family_t
    cdef struct sockaddr:
        sa_family_t sa_family
    cdef struct sockaddr_storage:
        sa_family_t ss_family
    enum: AF_INET, AF_INET6, SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL
    int accept4(int, sockaddr*, socklen_t*, int)

cdef extern from "unistd.h" nogil:
    int close_ "close"(int)
    long syscall(long, ...)

cdef extern from "sys/syscall.h" nogil:
    enum: SYS_recvfrom, SYS_sendto

cdef extern from "netinet/in.h" nogil:
    cdef struct in_addr:
        unsigned int s_addr
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        unsigned short sin6_port
        in6_addr sin6_addr

cdef extern from "arpa/inet.h" nogil:
    unsigned short ntohs(unsigned short)
    const char* inet_ntop(int, const void*, char*, socklen_t)

READ_SIZE = 65_536

cdef enum:
    SIZE = 65_536

cdef char buffer[SIZE]
cdef unsigned int last_address  # whose text is the last one
cdef str last_text = None


cdef object failure():
    return OSError(errno, os.strerror(errno))


cpdef tuple accept(object listening):
    global last_address, last_text
    cdef sockaddr_storage address
    cdef socklen_t size = sizeof(address)
    cdef char text[64]
    cdef int fd = accept4(listening.fileno(), <sockaddr*>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if fd < 0:
        if errno == EAGAIN or errno == EINTR or errno == ECONNABORTED:
            return None
        raise failure()
    if address.ss_family == AF_INET:
        if last_text is None or last_address != (<sockaddr_in*>&address).sin_addr.s_addr:
            last_address = (<sockaddr_in*>&address).sin_addr.s_addr
            inet_ntop(AF_INET, &(<sockaddr_in*>&address).sin_addr, text, sizeof(text))
            last_text = text.decode("ascii")
        return fd, last_text, ntohs((<sockaddr_in*>&address).sin_port)
    if address.ss_family == AF_INET6:
        inet_ntop(AF_INET6, &(<sockaddr_in6*>&address).sin6_addr, text, sizeof(text))
        return fd, text.decode("ascii"), ntohs((<sockaddr_in6*>&address).sin6_port)
    return fd, "", 0


cpdef bytes receive(int fd):
    cdef Py_ssize_t got = syscall(SYS_recvfrom, <long>fd, buffer, <size_t>SIZE, 0L, NULL, NULL)
    if got >= 0:
        return PyBytes_FromStringAndSize(buffer, got)
    if errno == EAGAIN or errno == EINTR:
        return None
    raise failure()


cpdef Py_ssize_t send(int fd, bytes data) except -1:
    cdef Py_ssize_t sent = syscall(
        SYS_sendto, <long>fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), <long>MSG_NOSIGNAL, NULL, 0L
    )
    if sent >= 0:
        return sent
    if errno == EAGAIN or errno == EINTR:
        return 0
    raise failure()


cpdef object hang_up(int fd):
    if close_(fd) < 0:
        raise failure()
