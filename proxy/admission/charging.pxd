cimport cython

from proxy.admission.accounts cimport Account, Counter
from proxy.admission.turns cimport Rota, Standing, expected

cdef double _UNKNOWN

@cython.locals(seconds=double, standing=Standing, counter=Counter)
cpdef double begin(Account account, Rota rota, tuple counters, Counter of_all=*) except -1
@cython.locals(rota=Rota, standing=Standing)
cdef object _begin_at(Counter counter, Account account, double seconds)
@cython.locals(counter=Counter, standing=Standing)
cpdef object correct(Account account, Rota rota, tuple counters, double seconds, Counter of_all=*)
cpdef object end(Account account, Rota rota, tuple counters, double charged, double seconds, Counter of_all=*)
