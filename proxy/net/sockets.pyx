# cython: language_level=3
"""One receive and one send on a non-blocking socket, without a Python socket object in between.

The twin of `sockets.py`. The interpreter lock is kept: neither call ever waits.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from posix.unistd cimport read, write

import os

READ_SIZE = 65_536

cdef enum:
    SIZE = 65_536

cdef char buffer[SIZE]


cdef object failure():
    return OSError(errno, os.strerror(errno))


cpdef bytes receive(int fd):
    cdef Py_ssize_t got = read(fd, buffer, SIZE)
    if got >= 0:
        return PyBytes_FromStringAndSize(buffer, got)
    if errno == EAGAIN or errno == EINTR:
        return None
    raise failure()


cpdef Py_ssize_t send(int fd, bytes data) except -1:
    cdef Py_ssize_t sent = write(fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    if sent >= 0:
        return sent
    if errno == EAGAIN or errno == EINTR:
        return 0
    raise failure()
