
cimport cython

@cython.locals(events=dict)
cpdef object server_step(object state, str event)
@cython.locals(events=dict)
cpdef object session_step(object state, str event)
