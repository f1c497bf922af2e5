"""Tiergate measured beside PgBouncer and beside no proxy at all."""
