cimport cython

cdef int _PASS, _NOTE, _READ, _BAD, _COUNT
cdef int _MORE, _FRAME, _NOTED, _HEAD
cdef Py_ssize_t _HEADER_SIZE, _HEAD_SIZE, _MAX_LENGTH

@cython.final
cdef class Scanner:
    cdef public bytes interest, data
    cdef public Py_ssize_t max_read, pos, skip, start, stop, counted
    cdef public int kind
    cdef Py_ssize_t _have, _need
    cdef list _held

    @cython.locals(size=Py_ssize_t, skip=Py_ssize_t)
    cpdef object feed(self, bytes chunk)
    @cython.locals(
        kept=bytes, looks=bytes, data="const unsigned char*", interest="const unsigned char*", pos=Py_ssize_t, size=Py_ssize_t, kind=int, look=int, length=Py_ssize_t,
        end=Py_ssize_t, told=int,
    )
    cpdef int next(self) except -1
    cdef int _hold(self, Py_ssize_t pos, Py_ssize_t size, Py_ssize_t need) except -1
    cpdef object forget(self)
    @cython.locals(rest=bytes, start=Py_ssize_t)
    cpdef bytes rewind(self)
