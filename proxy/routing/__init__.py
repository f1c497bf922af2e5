"""Which tenant a client speaks for, which cluster and pool serve it, which endpoint of those."""
