# cython: language_level=3
"""The twin of `pieces.py`."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append, PyList_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy


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


cpdef list put(list pieces, bytes more):
    if PyBytes_GET_SIZE(more):
        if pieces is None:
            return [more]
        PyList_Append(pieces, more)
    return pieces


cpdef bytes joined(list pieces, bytes last):
    if pieces is None:
        return last
    if PyBytes_GET_SIZE(last):
        PyList_Append(pieces, last)
    if PyList_GET_SIZE(pieces) == 1:
        return pieces[0]
    return b"".join(pieces)


cpdef long long word(bytes data, Py_ssize_t at) except -1:
    cdef const unsigned char* begin
    if at < 0 or PyBytes_GET_SIZE(data) - at < 4:
        raise IndexError("index out of range")
    begin = <const unsigned char*> PyBytes_AS_STRING(data) + at
    return <long long> begin[0] << 24 | begin[1] << 16 | begin[2] << 8 | begin[3]


cpdef bint same(bytes data, Py_ssize_t at, bytes wanted) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(wanted)
    if size > PyBytes_GET_SIZE(data) - at:
        return False
    return memcmp(PyBytes_AS_STRING(data) + at, PyBytes_AS_STRING(wanted), size) == 0


cpdef bint parted(bytes text, Py_ssize_t start, Py_ssize_t stop) except -1:
    cdef const char* begin = PyBytes_AS_STRING(text)
    if start < 0 or stop > PyBytes_GET_SIZE(text):
        raise IndexError("index out of range")
    while stop > start and begin[stop - 1] in (c";", c" ", c"\n", 0):
        stop -= 1
    return stop > start and memchr(begin + start, c";", stop - start) != NULL


cpdef bytes rebound(bytes data, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t name_end, bytes name):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name), rest = stop - name_end, length = 5 + size + rest
    cdef bytes made
    cdef unsigned char* to
    if name_end < 0 or rest < 0 or stop > PyBytes_GET_SIZE(data):
        raise IndexError("index out of range")
    made = PyBytes_FromStringAndSize(NULL, 1 + length)
    to = <unsigned char*> PyBytes_AS_STRING(made)
    to[0] = c"B"
    to[1], to[2], to[3], to[4] = length >> 24 & 0xFF, length >> 16 & 0xFF, length >> 8 & 0xFF, length & 0xFF
    to[5] = 0
    memcpy(to + 6, PyBytes_AS_STRING(name), size)
    memcpy(to + 6 + size, PyBytes_AS_STRING(data) + name_end, rest)
    return made


cpdef bytes key_between(bytes before, long long pid, bytes key, bytes behind):
    cdef Py_ssize_t ahead = PyBytes_GET_SIZE(before), size = PyBytes_GET_SIZE(key), rest = PyBytes_GET_SIZE(behind)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, ahead + 9 + size + rest)
    cdef unsigned char* to = <unsigned char*> PyBytes_AS_STRING(made)
    cdef Py_ssize_t length = 8 + size
    memcpy(to, PyBytes_AS_STRING(before), ahead)
    to += ahead
    to[0] = c"K"
    to[1], to[2], to[3], to[4] = length >> 24 & 0xFF, length >> 16 & 0xFF, length >> 8 & 0xFF, length & 0xFF
    to[5], to[6], to[7], to[8] = pid >> 24 & 0xFF, pid >> 16 & 0xFF, pid >> 8 & 0xFF, pid & 0xFF
    memcpy(to + 9, PyBytes_AS_STRING(key), size)
    memcpy(to + 9 + size, PyBytes_AS_STRING(behind), rest)
    return made
