cimport cython

cdef int _FOREIGN, _PART, _WHOLE, _ASIDE, _ERROR, _NOTIFICATION, _ENDS, _BATCH, _FORWARD, _DROP, _INJECT
cdef bytes _MEANING
cdef Py_ssize_t _GAP

@cython.final
@cython.freelist(16)
cdef class Expect:
    cdef public int action, kind
    cdef public bytes says, error, interest
    cdef public object learn, statement, undo, restores
    cdef public bint crucial, tolerant

@cython.final
cdef class Pipeline:
    cdef public list said
    cdef Expect _head
    cdef list _behind
    cdef Py_ssize_t _gone
    cdef bint _skipping
    cdef public Py_ssize_t answered, asked

    cpdef bint owes(self)
    cpdef Expect head(self)
    @cython.locals(behind=list, gone=Py_ssize_t)
    cdef object _next(self)
    @cython.locals(head=Expect)
    cpdef bytes interest(self)
    cpdef object expect(self, Expect entry)
    @cython.locals(head=Expect, following=Expect, meaning=int)
    cpdef int reply(self, int kind) except -1
    @cython.locals(batch=Expect, kind=int, rest=list)
    cpdef Expect unfold(self, Py_ssize_t done)
    cdef object _say(self)
    cdef object _fail(self, Expect head)

@cython.locals(entry=Expect)
cpdef Expect expect_of(int kind, object statement, object undo, int action=*)
@cython.locals(entry=Expect)
cpdef Expect batch_of(bytes kinds, object statement, object undo)
