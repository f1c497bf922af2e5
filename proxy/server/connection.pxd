cimport cython

from proxy.admission.accounts cimport Account
from proxy.admission.guarantees cimport Guarantee
from proxy.net.clock cimport monotonic
from proxy.net.transport cimport deliver
from proxy.protocol.lifecycle cimport Stage, step
from proxy.protocol.pipeline cimport Expect, Pipeline
from proxy.protocol.state cimport State
from proxy.protocol.statements cimport Prepared, Statement
from proxy.server.link cimport Link
from proxy.server.stated cimport Stated
from proxy.stats cimport PoolStats
from proxy.wire.frames cimport Scanner
from proxy.wire.pieces cimport joined, piece, put

cdef int MORE, HEAD, HEADER_SIZE, DROP, FORWARD
cdef int _READY, _ERROR, _STATUS, _COMPLETE, _COPY_IN, _COPY_BOTH, _NOTIFICATION, _BATCH, _IDLE, _IN_TRANSACTION, _FAILED
cdef bytes _TOLD_TAGS
cdef tuple _ALTERED

cdef class ServerConnection(Stated):
    cdef object __weakref__
    cdef object _done
    cdef bint _job_failed, _undone
    cdef public Account account
    cdef public Guarantee guarantee
    cdef public Link link
    cdef public PoolStats stats
    cdef public object address, endpoint, key, owner, pid, struck, transport
    cdef public Stage state
    cdef public tuple permits
    cdef public int cancels, status, generation
    cdef public Py_ssize_t named_in, place, unnamed_in
    cdef public long long carried, clean_at, uses
    cdef public bint closing, copy_in, dirty, hurried, spent, write_paused
    cdef public bytes last_error, state_error
    cdef public double charged, idle_since, lent_at, opened_at, query_since, struck_at, xact_since
    cdef public Prepared prepared
    cdef public Scanner scanner
    cdef public list to_close
    cdef public Statement unnamed
    cdef public object unnamed_as

    @cython.locals(
        link=Link, scanner=Scanner, pipeline=Pipeline, head=Expect, pieces=list, told=int, kind=int, action=int, start=Py_ssize_t,
        stop=Py_ssize_t, sent=Py_ssize_t, undone=bint,
    )
    cpdef object data_received(self, bytes data)
    cdef list _with_said(self, list pieces)
    @cython.locals(before=bytes)
    cdef object _state_settled(self, list pieces)
    @cython.locals(now=double, query=double, xact=double, account=Account)
    cdef object _ready(self, int status, Expect head)
    cpdef object expect(self, Expect entry)
    cpdef object expect_batch(self, Expect entry)
    cpdef object send(self, bytes data)
    cpdef bytes prepare(self, Statement statement)
    cpdef object begin(self, double now)
    cpdef object step(self, str event)
