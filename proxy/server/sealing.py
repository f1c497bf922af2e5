"""Seals what is set on one server connection, and knows when that must be done again.

A seal is renewed at a checkout, or between the transactions of a session that keeps its connection, once half
of its life is over; so whatever begins has at least the other half, and what has begun in time is not
disturbed by its end (see `tiergate.current_tenant()` of the SQL kit).
"""

from __future__ import annotations

from time import monotonic

from proxy.model import Seal
from proxy.protocol.seal import PARAMETER, Introduction, sign
from proxy.protocol.state import State

NEVER = float("inf")


class Sealer:
    """Of one connection. Times are those of `monotonic`, the server's clock is its own distance from that."""

    __slots__ = ("_backend", "_clock", "seal")

    def __init__(self, seal: Seal, introduction: Introduction, now: float) -> None:
        self.seal = seal
        self._backend = introduction.backend
        self._clock = introduction.time - now

    def renew(self, changes: dict[str, str | None], needs: State, due: float) -> float:
        """Adds the tenant to `changes` if its seal is due; when the next one is, if these are made."""
        guc = self.seal.tenant_guc.lower()
        now = monotonic()
        if guc not in changes:
            if now < due:
                return due
            if guc in needs.parameters:
                changes[guc] = needs.parameters[guc]
        return now + self.seal.lifetime / 2

    def add(self, changes: dict[str, str | None]) -> None:
        """The seal of the tenant that `changes` name, if they do."""
        guc = self.seal.tenant_guc.lower()
        if guc in changes:
            tenant = changes[guc]
            expires = int(monotonic() + self._clock + self.seal.lifetime)
            changes[PARAMETER] = None if not tenant else sign(self.seal, tenant, self._backend, expires)
