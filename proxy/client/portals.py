"""Portals of what the proxy performs itself, and what is told of such a statement."""

from __future__ import annotations

from proxy.errors import ProtocolViolation, UnknownPortal
from proxy.protocol.tenancy import Tenancy
from proxy.sql import constants
from proxy.sql.steps import Step, Verb
from proxy.wire import decode, encode

_TEXT, _BOOL = 25, 16


class Portal:
    """A step that is bound: in how many savepoints (`depth`), and if `late` in a block that had failed. `spent` once it
    has been executed, `failed` if its transaction or savepoint has."""

    __slots__ = ("binary", "depth", "failed", "late", "local", "spent", "step", "value")

    def __init__(self, step: Step, value: str | None, local: bool, binary: bool) -> None:
        self.step, self.value, self.local, self.binary = step, value, local, binary
        self.depth = 0
        self.late = self.spent = self.failed = False


def bound(step: Step, name: bytes, body: bytes, at: int) -> Portal:
    """The portal that a Bind makes. Raises ProtocolViolation and what else PostgreSQL says."""
    values, formats, results = decode.bind_values(body, at)
    needs = len(step.types) if step.columns else max(step.value_from, step.local_from)
    if len(values) != needs:
        raise wrong_number(name, len(values), needs)
    value, local = step.value, step.local
    if step.value_from:
        raw = values[step.value_from - 1]
        value = None if raw is None else raw.decode("utf-8", "surrogateescape")
    if step.local_from:
        flag = values[step.local_from - 1]
        binary = formats[step.local_from - 1] == 1
        local = flag == b"\1" if binary else constants.says_true((flag or b"").decode("latin-1"))
    return Portal(step, value, local, bool(results and results[0] == 1))


def outlive(portals: dict[bytes, Portal], done: Step, tenancy: Tenancy) -> tuple[dict[bytes, Portal], bytes]:
    """Those that are left behind what has been done, and what PostgreSQL says of others."""
    depth = tenancy.depth
    if done.verb is Verb.RELEASE:
        for portal in portals.values():
            portal.depth = min(portal.depth, depth)
        return portals, b""
    if not tenancy.open or done.chain:
        left: dict[bytes, Portal] = {}
    elif done.verb is Verb.ROLLBACK_TO:
        left = {name: portal for name, portal in portals.items() if portal.depth < depth}
    else:
        return portals, b""
    said = [
        encode.notice(f'skipping cleanup for portal "{shown(name)}"', sqlstate="01000", severity="WARNING")
        for name, portal in portals.items()
        if name not in left and portal.late and not portal.spent
    ]
    return left, b"".join(said)


def shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def unknown(name: bytes) -> UnknownPortal:
    return UnknownPortal(f'portal "{shown(name)}" does not exist')


def wrong_number(name: bytes, given: int, needs: int) -> ProtocolViolation:
    """Of values for the parameters of that statement."""
    return ProtocolViolation(
        f'bind message supplies {given} parameters, but prepared statement "{shown(name)}" requires {needs}'
    )


def parameters(step: Step, oids: bytes) -> bytes:
    """The ParameterDescription: what a Parse left open is what PostgreSQL finds."""
    types = list(step.types) or [0] * max(step.value_from, step.local_from)
    if step.value_from:
        types[step.value_from - 1] = _TEXT
    if step.local_from:
        types[step.local_from - 1] = _BOOL
    given = [int.from_bytes(oids[at : at + 4], "big") for at in range(2, len(oids), 4)]
    found = [said or own for said, own in zip(given + [0] * len(types), types, strict=False)]
    body = b"".join(oid.to_bytes(4, "big") for oid in found)
    return encode.frame(b"t", len(found).to_bytes(2, "big") + body)
