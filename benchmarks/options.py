"""How long, how often and how much: what the command line says, for all parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    seconds: float = 1.5
    repetitions: int = 3
    clients: tuple[int, ...] = (1, 8, 64, 500)
    modes: tuple[str, ...] = ("simple", "extended", "prepared")
    megabytes: int = 200
    idle_clients: int = 5_000
    tenants: int = 10_000
    active_tenants: int = 100
    stored_tenants: int = 100_000
