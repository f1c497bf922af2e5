cpdef object exchange(str auth_type, object asking)
