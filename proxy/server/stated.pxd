from proxy.net.transport cimport Receiver
from proxy.protocol.pipeline cimport Pipeline
from proxy.protocol.state cimport State

cdef class Stated(Receiver):
    cdef public object login_parameters, sealer
    cdef public State reported, values
    cdef public double seal_due
    cdef public Pipeline pipeline
    cdef public str entered
    cdef public bint alone
