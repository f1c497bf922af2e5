# cython: language_level=3
"""The twin of `pieces.py`."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr


cpdef Py_ssize_t end_of(bytes data, Py_ssize_t at) except -2:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef char* begin = PyBytes_AS_STRING(data)
    cdef char* found
    if at >= size:
        return -1
    found = <char*> memchr(begin + at, 0, size - at)
    return found - begin if found else -1


cpdef bytes piece(bytes data, Py_ssize_t start, Py_ssize_t stop):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    if stop > size:
        stop = size
    if start >= stop:
        return b""
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + start, stop - start)


cpdef long long word(bytes data, Py_ssize_t at) except -1:
    cdef const unsigned char* begin
    if at < 0 or PyBytes_GET_SIZE(data) - at < 4:
        raise IndexError("index out of range")
    begin = <const unsigned char*> PyBytes_AS_STRING(data) + at
    return <long long> begin[0] << 24 | begin[1] << 16 | begin[2] << 8 | begin[3]
