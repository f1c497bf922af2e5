from proxy.admission.accounts cimport Account, UserAccount, give_all
from proxy.client.applicants cimport Login
from proxy.client.plane cimport Plane
from proxy.client.settled cimport Settled
from proxy.net.clock cimport monotonic
from proxy.net.transport cimport deliver, hurry
from proxy.protocol.state cimport State
from proxy.protocol.lifecycle cimport Stage, step
from proxy.protocol.statements cimport Statement
from proxy.registry.memory cimport Registry
from proxy.server.connection cimport ServerConnection
from proxy.server.link cimport Link
from proxy.server.pool cimport Pool
from proxy.sql.verdict cimport Judge
from proxy.wire.frames cimport Scanner

cdef class Given:
    cdef public Account account
    cdef public UserAccount user_account
    cdef public object limits, tenant
    cdef public long epoch
    cdef public tuple permits

cdef class Conversation(Link):
    cdef object __weakref__
    cdef public object _counted_by, _permits
    cdef public object cancel_wanted, checked, doubts, evicting, inquiry, host, key, mode, owing, rules
    cdef public Stage state
    cdef public frozenset pins
    cdef public object tenant, throttled, transport, unnamed_by, user, watch
    cdef public bint _wanted, answers_first, discarded, draws_alone, entering, evicted, gone, held_back, holding, keeps_sequences, leaving, maps_statements, opening, paid, skipping, strict, temp_first, unasking, unsynced, write_paused
    cdef public bytes amiss, answer, parked
    cdef public double connected_at, idle_since
    cdef public list outgoing, undescribed
    cdef public Login login
    cdef public Plane plane
    cdef public Pool pool
    cdef public Registry registry
    cdef public long epoch, pid
    cdef public Judge judge
    cdef public Py_ssize_t bound_in, lasting_in, sent
    cdef public int confirming, port
    cdef public long long drawn_use
    cdef public Scanner scanner
    cdef public ServerConnection drawn_on, server
    cdef public State startup, told
    cdef public dict by_sql, described, lasting, statements
    cdef public Settled chooser
    cdef public Statement unnamed

    cdef object _take(self, Given entrance)
    @cython.locals(stage=Stage)
    cpdef object step(self, str event)
    cpdef object hurry(self, bint hurried)
    cpdef object release_permits(self)
    cpdef object use_pool(self, Pool pool)
    cpdef object use_rules(self, object rules)
    cpdef object look_at_texts(self, bint wanted)
    cpdef object name_statement(self, bytes name, Statement statement)
    cpdef object write(self, bytes data)
    cpdef object resume(self)
    cpdef object _park(self, bytes data)
