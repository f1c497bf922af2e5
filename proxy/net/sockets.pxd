cpdef tuple accept(object listening)
cpdef bytes receive(int fd)
cpdef Py_ssize_t send(int fd, bytes data) except -1
cpdef object hang_up(int fd)
