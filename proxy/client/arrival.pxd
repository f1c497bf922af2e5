cimport cython

from proxy.auth.exchange cimport Exchange, Step
from proxy.client.applicants cimport Applicant, Login
from proxy.net.stream cimport LoginStream
from proxy.registry.memory cimport Registry
from proxy.wire.pieces cimport piece, word

cdef int _TLS_HANDSHAKE, _PASSWORD
cdef long _CANCEL, _GSSENC, _LONGEST, _SSL

cdef class Arrival

cdef class Reception:
    cdef public object logged_in, options, tls
    cdef public Registry registry

    cpdef Applicant recall(self, bytes packet)
    cpdef object remember(self, bytes packet, Applicant who)
    cpdef object arrived(self, Arrival arrival)
    cpdef object gone(self, Arrival arrival)
    cpdef object claims(self, Arrival arrival, str tenant)
    cpdef object expect(self, double deadline)

cdef class Arrival(LoginStream):
    cdef public object doorstep, task, tls
    cdef public bytes binding
    cdef public str claim
    cdef public bint counted, over
    cdef public double deadline
    cdef Applicant _who
    cdef Exchange _exchange
    cdef Reception _reception
    cdef bytes _ahead, _packet
    cdef bint _expired
    cdef long _refused

    cpdef object data_received(self, bytes data)
    cpdef object write(self, bytes data)
    cdef object _hear(self, bytes data)
    @cython.locals(size=Py_ssize_t)
    cdef object _read(self, bytes data)
    @cython.locals(length=cython.longlong, code=cython.longlong)
    cdef Py_ssize_t _packet_size(self, bytes data) except -1
    @cython.locals(code=long)
    cdef object _take_packet(self, bytes packet)
    @cython.locals(plain=bint, refused=bint, reception=Reception, who=Applicant)
    cdef object _introduce(self, bytes packet)
    @cython.locals(talk=Exchange, step=Step)
    cdef object _ask_for_proof(self, Applicant who)
    cdef object _claim(self, Applicant who)
    cdef object _prove(self, Exchange talk, bytes body)
    @cython.locals(login=Login)
    cpdef object _proceed(self, Step step)
    @cython.locals(login=Login, registry=Registry, who=Applicant)
    cpdef Login _known_login(self)
    cpdef Applicant _applicant(self)
    cpdef object _enter(self, Login login)

@cython.locals(length=Py_ssize_t)
cdef Py_ssize_t _message_size(bytes data) except -1
