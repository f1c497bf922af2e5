# cython: language_level=3
"""The twin of `mac.py`. The library is the one that `hashlib` has loaded, and its three functions are those by which SHA-256
has been there since its version 0.9.8. Where they are not, or say otherwise than `hashlib`, the objects of that are used."""

import hashlib
from sys import modules

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

cdef extern from "dlfcn.h":
    void* dlopen(const char* path, int flags)
    void* dlsym(void* library, const char* name)
    int RTLD_LAZY, RTLD_NOLOAD

ctypedef int (*_Init)(Hash*)
ctypedef int (*_Update)(Hash*, const void*, size_t)
ctypedef int (*_Final)(unsigned char*, Hash*)

DEF SIZE = 32
DEF BLOCK = 64
cdef _Init _init = NULL
cdef _Update _update = NULL
cdef _Final _final = NULL
cdef object _sha256 = hashlib.sha256
cdef object _nothing = _sha256()


cdef bint _find():
    global _init, _update, _final
    path = getattr(modules.get("_hashlib"), "__file__", None)
    name = path.encode() if path else b""
    cdef void* library = dlopen(PyBytes_AS_STRING(name) if name else NULL, RTLD_LAZY | RTLD_NOLOAD if name else RTLD_LAZY)
    if library is NULL:
        return False
    _init = <_Init> dlsym(library, b"SHA256_Init")
    _update = <_Update> dlsym(library, b"SHA256_Update")
    _final = <_Final> dlsym(library, b"SHA256_Final")
    return _init is not NULL and _update is not NULL and _final is not NULL


cdef bytes _finished(Hash* state):
    cdef bytes made = PyBytes_FromStringAndSize(NULL, SIZE)
    _final(<unsigned char*> PyBytes_AS_STRING(made), state)
    return made


cdef bytes _digest(bytes data):
    cdef Hash state
    _init(&state)
    _update(&state, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return _finished(&state)


cdef bint _direct = _find()
if _direct:
    _direct = all(_digest(bytes(size)) == _sha256(bytes(size)).digest() for size in (0, 55, 56, 64, 200))


cpdef bytes digest(bytes data):
    if _direct:
        return _digest(data)
    whole = _nothing.copy()
    whole.update(data)
    return whole.digest()


cdef class Mac:
    def __init__(self, bytes key):
        cdef unsigned char[BLOCK] inner, outer
        cdef Py_ssize_t at, size = PyBytes_GET_SIZE(key)
        cdef unsigned char octet
        if size > BLOCK:
            raise ValueError("a key of more than a block")
        for at in range(BLOCK):
            octet = (<unsigned char*> PyBytes_AS_STRING(key))[at] if at < size else 0
            inner[at], outer[at] = octet ^ 0x36, octet ^ 0x5C
        if _direct:
            _init(&self._inner)
            _update(&self._inner, inner, BLOCK)
            _init(&self._outer)
            _update(&self._outer, outer, BLOCK)
        else:
            self._inner_object = _sha256(PyBytes_FromStringAndSize(<char*> inner, BLOCK))
            self._outer_object = _sha256(PyBytes_FromStringAndSize(<char*> outer, BLOCK))

    cpdef bytes of(self, bytes data):
        cdef Hash state
        cdef unsigned char[SIZE] within
        if not _direct:
            inner, outer = self._inner_object.copy(), self._outer_object.copy()
            inner.update(data)
            outer.update(inner.digest())
            return outer.digest()
        state = self._inner
        _update(&state, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        _final(within, &state)
        state = self._outer
        _update(&state, within, SIZE)
        return _finished(&state)
