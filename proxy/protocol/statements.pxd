cimport cython

@cython.freelist(16)
cdef class Statement:
    cdef object __weakref__
    cdef public bytes name, text, oids
    cdef public object meaning, told, verdict

cdef tuple _ANY

@cython.locals(made=Statement)
cpdef Statement unnamed_statement(bytes text, bytes oids, object verdict)

@cython.final
cdef class Prepared:
    cdef Py_ssize_t _limit
    cdef object _names
    cdef Statement _latest
    cdef public dict own

    cpdef bint use(self, Statement statement) except -1
    cpdef object remove(self, Statement statement)
    cpdef object described(self, Statement statement)
