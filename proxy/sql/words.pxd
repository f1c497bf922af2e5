cimport cython

cdef bint _COMPILED
cdef bytes _MARKS
cdef int _DO
cdef Py_ssize_t _LONGEST_END
cdef object _ENDS, _ends

@cython.locals(key=int)
cdef bint _may_be_verb(const unsigned char* text, Py_ssize_t at, Py_ssize_t stop) noexcept

cdef bint _may_matter(int rule, int before, int last, int following) noexcept

cpdef bint suspicious(bytes text) except -1

@cython.locals(
    text="const unsigned char*", marks="const unsigned char*", at=Py_ssize_t, before=int, last=int, rule=int, following=int,
)
cdef bint _suspicious(bytes data, Py_ssize_t start, Py_ssize_t stop) except -1

cpdef bint surely_plain(bytes data, Py_ssize_t start, Py_ssize_t stop) except -1

cpdef bint plain(bytes text) except -1

@cython.locals(at=Py_ssize_t, depth=int, byte=int, following=int, ends=bint)
cpdef bint says_nothing(bytes data, Py_ssize_t start, Py_ssize_t stop) except -1

cpdef bint ends_block(bytes data, Py_ssize_t start, Py_ssize_t stop) except -1
