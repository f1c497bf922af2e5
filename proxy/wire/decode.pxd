cimport cython

from proxy.wire.pieces cimport end_of, piece

@cython.locals(end=Py_ssize_t)
cpdef tuple cstring(bytes body, Py_ssize_t at=*)
cpdef bytes query(bytes body)
@cython.locals(text=bytes)
cpdef bytes query_within(bytes data, Py_ssize_t start, Py_ssize_t stop)
cpdef tuple bind_names(bytes body)
@cython.locals(portal_end=Py_ssize_t, end=Py_ssize_t)
cpdef tuple bind_names_within(bytes data, Py_ssize_t start, Py_ssize_t stop)
cpdef tuple target(bytes body)
cpdef tuple parse_fields(bytes body)
@cython.locals(name_end=Py_ssize_t, text_end=Py_ssize_t, oids=bytes)
cpdef tuple parse_within(bytes data, Py_ssize_t start, Py_ssize_t stop)

