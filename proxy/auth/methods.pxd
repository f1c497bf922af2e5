from proxy.auth.exchange cimport Asking, Exchange

cpdef Exchange exchange(str auth_type, Asking asking)
