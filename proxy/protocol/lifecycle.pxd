
cpdef object server_step(object state, str event)
cpdef object session_step(object state, str event)
