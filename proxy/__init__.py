"""Tiergate: a tenant-aware connection pooler that speaks the PostgreSQL wire protocol."""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

__version__ = "0.1.0"


def _compiled() -> bool:
    scanner = Path(__file__).parent / "wire" / "frames"
    return any(scanner.with_suffix(suffix).exists() for suffix in EXTENSION_SUFFIXES)


# Whether the hot modules run as C (see setup.py) or as the Python that they are written in.
BUILD = "compiled" if _compiled() else "interpreted"
