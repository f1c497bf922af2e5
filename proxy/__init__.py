"""Tiergate: a tenant-aware connection pooler that speaks the PostgreSQL wire protocol."""

__version__ = "0.1.0"
