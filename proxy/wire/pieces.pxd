cpdef Py_ssize_t end_of(bytes data, Py_ssize_t at) except -2
cpdef bytes piece(bytes data, Py_ssize_t start, Py_ssize_t stop)
cpdef list put(list pieces, bytes more)
cpdef bytes joined(list pieces, bytes last)
cpdef long long word(bytes data, Py_ssize_t at) except -1
cpdef bint same(bytes data, Py_ssize_t at, bytes wanted) except -1
cpdef bint parted(bytes text, Py_ssize_t start, Py_ssize_t stop) except -1
cpdef bytes rebound(bytes data, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t name_end, bytes name)
cpdef bytes key_between(bytes before, long long pid, bytes key, bytes behind)
