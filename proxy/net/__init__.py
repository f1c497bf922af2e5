"""Sockets: listeners, TLS, and the stream that a login reads."""
