cdef object _LENGTH, _SHORT, _KEY_DATA

cpdef bytes frame(bytes kind, bytes body)
cpdef bytes query(bytes text)
cpdef bytes parse(bytes name, bytes text, bytes oids=*)
cpdef bytes bind(bytes portal, bytes statement, object values)
cpdef bytes describe(bytes kind, bytes name)
cpdef bytes execute(bytes portal=*, object max_rows=*)
cpdef bytes close(bytes kind, bytes name)
cpdef bytes ready_for_query(bytes status=*)
cpdef bytes parameter_status(bytes name, bytes value)
cpdef bytes backend_key_data(object pid, bytes key)
cpdef bytes command_complete(str tag)
cpdef bytes data_row(object values)
