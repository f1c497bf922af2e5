from proxy.net.transport cimport Receiver, deliver

cdef class LoginStream(Receiver):
    cdef public object transport
    cdef public bytes client_key
    cdef public str host
    cdef public int port
    cdef public bytearray _buffer
    cdef public object _closed, _waiter
    cdef public bint _lost, _over, _paused

    cdef object _set_up(self, str host, int port)
    cpdef object data_received(self, bytes data)
    cpdef object write(self, bytes data)
    cpdef object _read_on(self)
    cpdef bytes take_over(self, object protocol)
