"""Who is it: authentication methods towards clients and towards servers, as small exchanges without I/O."""
