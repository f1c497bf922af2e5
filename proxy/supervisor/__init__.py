"""Several workers behind one address: started, replaced, seen as one, upgraded without losing a client."""
