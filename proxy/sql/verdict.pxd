from proxy.sql.words cimport plain

cdef class Judge:
    cdef Py_ssize_t _max_entries, _bytes
    cdef object _kept

    cpdef object judge(self, bytes text)
