cpdef Py_ssize_t end_of(bytes data, Py_ssize_t at) except -2
cpdef bytes piece(bytes data, Py_ssize_t start, Py_ssize_t stop)
cpdef long long word(bytes data, Py_ssize_t at) except -1
