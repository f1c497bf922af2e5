# cython: language_level=3
"""The twin of `octets.py`. The tables of base64 are looked up by what is secret: the time says no more of a proof than the
proof itself, which went over the wire."""

from os import register_at_fork, urandom

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcpy, memset

cdef const char* _LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef unsigned char[256] _VALUES
cdef int _letter
memset(_VALUES, 0xFF, 256)
for _letter in range(64):
    _VALUES[<unsigned char> _LETTERS[_letter]] = _letter


cpdef Py_ssize_t comma(bytes message, Py_ssize_t at) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(message)
    cdef char* begin = PyBytes_AS_STRING(message)
    cdef char* found
    if at < 0:
        raise IndexError("index out of range")
    if at >= size:
        return size
    found = <char*> memchr(begin + at, c",", size - at)
    return found - begin if found else size


cpdef bint is_printable(bytes message, Py_ssize_t start, Py_ssize_t stop) except -1:
    cdef const unsigned char* text = <const unsigned char*> PyBytes_AS_STRING(message)
    cdef Py_ssize_t at
    if start < 0 or stop > PyBytes_GET_SIZE(message):
        raise IndexError("index out of range")
    for at in range(start, stop):
        if not 0x21 <= text[at] <= 0x7E:
            return False
    return True


cpdef bytes decoded(bytes message, Py_ssize_t start, Py_ssize_t stop):
    cdef Py_ssize_t size = stop - start, whole, padding = 0, at
    cdef const unsigned char* text
    cdef unsigned char* to
    cdef unsigned char one, two, three = 0, four = 0
    cdef bytes made
    if start < 0 or stop > PyBytes_GET_SIZE(message):
        raise IndexError("index out of range")
    if size <= 0:
        return b""
    if size & 3:
        return None
    text = <const unsigned char*> PyBytes_AS_STRING(message) + start
    if text[size - 1] == c"=":
        padding = 2 if text[size - 2] == c"=" else 1
    made = PyBytes_FromStringAndSize(NULL, size // 4 * 3 - padding)
    to = <unsigned char*> PyBytes_AS_STRING(made)
    whole = size - 4 if padding else size
    at = 0
    while at < whole:
        one, two, three, four = _VALUES[text[at]], _VALUES[text[at + 1]], _VALUES[text[at + 2]], _VALUES[text[at + 3]]
        if (one | two | three | four) & 0x80:
            return None
        to[0] = one << 2 | two >> 4
        to[1] = (two & 0x0F) << 4 | three >> 2
        to[2] = (three & 0x03) << 6 | four
        to += 3
        at += 4
    if padding:
        one, two = _VALUES[text[at]], _VALUES[text[at + 1]]
        three = _VALUES[text[at + 2]] if padding == 1 else 0
        if (one | two | three) & 0x80:
            return None
        to[0] = one << 2 | two >> 4
        if padding == 1:
            to[1] = (two & 0x0F) << 4 | three >> 2
    return made


DEF NONCE = 24
cdef bytes _random = b""
cdef Py_ssize_t _drawn = 0


cpdef bytes nonce():
    """They are asked for many at once. Threads may come here together: only `urandom` lets go of the interpreter's lock, and
    what it gives is the caller's own."""
    global _random, _drawn
    cdef bytes fresh
    cdef Py_ssize_t at
    if _drawn + NONCE > PyBytes_GET_SIZE(_random):
        fresh = encoded(urandom(3072))
        _random, _drawn = fresh, 0
    at = _drawn
    _drawn += NONCE
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(_random) + at, NONCE)


def _forget():
    global _random, _drawn
    _random, _drawn = b"", 0


register_at_fork(after_in_child=_forget)  # both would go on with the same


cpdef bytes encoded(bytes data):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), at = 0
    cdef const unsigned char* come = <const unsigned char*> PyBytes_AS_STRING(data)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, (size + 2) // 3 * 4)
    cdef unsigned char* to = <unsigned char*> PyBytes_AS_STRING(made)
    while at + 2 < size:
        to[0] = _LETTERS[come[at] >> 2]
        to[1] = _LETTERS[(come[at] & 0x03) << 4 | come[at + 1] >> 4]
        to[2] = _LETTERS[(come[at + 1] & 0x0F) << 2 | come[at + 2] >> 6]
        to[3] = _LETTERS[come[at + 2] & 0x3F]
        to += 4
        at += 3
    if at < size:
        to[0] = _LETTERS[come[at] >> 2]
        if at + 1 < size:
            to[1] = _LETTERS[(come[at] & 0x03) << 4 | come[at + 1] >> 4]
            to[2] = _LETTERS[(come[at + 1] & 0x0F) << 2]
        else:
            to[1] = _LETTERS[(come[at] & 0x03) << 4]
            to[2] = c"="
        to[3] = c"="
    return made


cpdef bytes xor(bytes one, bytes other):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(one), at
    cdef const unsigned char* left = <const unsigned char*> PyBytes_AS_STRING(one)
    cdef const unsigned char* right = <const unsigned char*> PyBytes_AS_STRING(other)
    cdef bytes made
    cdef unsigned char* to
    if PyBytes_GET_SIZE(other) != size:
        raise ValueError("one is longer than the other")
    made = PyBytes_FromStringAndSize(NULL, size)
    to = <unsigned char*> PyBytes_AS_STRING(made)
    for at in range(size):
        to[at] = left[at] ^ right[at]
    return made


cpdef bytes listed(bytes one, bytes two, bytes three):
    cdef Py_ssize_t first = PyBytes_GET_SIZE(one), second = PyBytes_GET_SIZE(two), third = PyBytes_GET_SIZE(three)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, first + second + third + 2)
    cdef char* to = PyBytes_AS_STRING(made)
    memcpy(to, PyBytes_AS_STRING(one), first)
    to[first] = c","
    to += first + 1
    memcpy(to, PyBytes_AS_STRING(two), second)
    to[second] = c","
    memcpy(to + second + 1, PyBytes_AS_STRING(three), third)
    return made


cpdef bytes request(unsigned int code, bytes data, bytes behind):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), rest = PyBytes_GET_SIZE(behind), length = 8 + size
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 9 + size + rest)
    cdef unsigned char* to = <unsigned char*> PyBytes_AS_STRING(made)
    to[0] = c"R"
    to[1], to[2], to[3], to[4] = length >> 24 & 0xFF, length >> 16 & 0xFF, length >> 8 & 0xFF, length & 0xFF
    to[5], to[6], to[7], to[8] = code >> 24 & 0xFF, code >> 16 & 0xFF, code >> 8 & 0xFF, code & 0xFF
    memcpy(to + 9, PyBytes_AS_STRING(data), size)
    memcpy(to + 9 + size, PyBytes_AS_STRING(behind), rest)
    return made
