"""Bytes to frames to fields and back: PostgreSQL's protocol 3.x, without I/O or state of a conversation."""
