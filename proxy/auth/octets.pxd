cpdef Py_ssize_t comma(bytes message, Py_ssize_t at) except -1
cpdef bint is_printable(bytes message, Py_ssize_t start, Py_ssize_t stop) except -1
cpdef bytes decoded(bytes message, Py_ssize_t start, Py_ssize_t stop)
cpdef bytes nonce()
cpdef bytes encoded(bytes data)
cpdef bytes xor(bytes one, bytes other)
cpdef bytes listed(bytes one, bytes two, bytes three)
cpdef bytes request(unsigned int code, bytes data, bytes behind)
