cimport cython

cdef double _SHORTEST

@cython.final
cdef class Histogram:
    cdef public long long[17] buckets
    cdef public double total

    @cython.locals(bucket=Py_ssize_t, bound=double)
    cpdef object add(self, double seconds)

@cython.final
cdef class TenantStats:
    cdef public long long bytes, queries, refused_quota, refused_rate, throttled, transactions, waits
    cdef public double server_seconds, throttled_seconds, wait_seconds
    cdef public Histogram durations
    cdef public dict errors

@cython.final
cdef class PoolStats:
    cdef public long long bytes_received, bytes_sent, queries, server_assignments, transactions
    cdef public double query_seconds, wait_seconds, xact_seconds
    cdef tuple _newer, _older

    cpdef object add_query(self, double query_seconds, double xact_seconds)

cdef class ProcessStats:
    cdef public long long cancels, client_connections, login_failures, rejected_connections, server_connections, server_failures
    cdef public bint config_refused
    cdef public dict pins, timeouts
