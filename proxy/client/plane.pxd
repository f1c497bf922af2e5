from proxy.registry.memory cimport Registry
from proxy.sql.verdict cimport Judge

cdef class Plane:
    cdef public dict _keys, places
    cdef public object _openings, _openings_of, _way, _way_of, accounts, answers, clients, later, logging_in, options, pools, process
    cdef public bint draining
    cdef public Judge judge
    cdef public int number
    cdef public long placed_in
    cdef public Registry registry
    cdef public set keeping_sequences, relays, sessions
