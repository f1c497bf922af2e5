cdef class Tenancy:
    cdef public object before, block, committed, home, lasting, own, value
    cdef public bint open
    cdef public list _begins, _savepoints

    cpdef object begin(self)
    cpdef object end(self, bint committed)
    cpdef object fail(self)
    cpdef object check(self, object step)
    cpdef bytes control(self, object step)
