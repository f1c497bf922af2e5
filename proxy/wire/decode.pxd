cpdef tuple cstring(bytes body, Py_ssize_t at=*)
cpdef bytes query(bytes body)
cpdef tuple bind_names(bytes body)
cpdef tuple target(bytes body)
