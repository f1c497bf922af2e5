"""Session state as a value: the parameters a session needs, and the messages that bring a server to them.

A State is immutable and interned: two sessions that need the same parameters hold the same object, so
that "does this connection already have it" is one comparison. Names are lower case. The difference is
applied with `set_config` over the extended protocol with bound values; a NULL value takes a parameter
back to what the server connection began with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from weakref import WeakValueDictionary

from proxy.protocol import pipeline as owed
from proxy.protocol.pipeline import DROP, Expect, Pipeline
from proxy.protocol.statements import PREFIX, Statement
from proxy.sql.verdict import PLAIN
from proxy.wire import encode

ROLE = "role"
# Stands for a parameter's value that nobody knows; no server is ever told.
UNKNOWN = "\1"
Change = tuple[str, str | None]

_SMALL_BATCH = 50
# What is owed for a SET whose failure fails all that comes behind it.
_CRUCIAL = tuple(
    Expect(kind, DROP, crucial=True) for kind in (owed.PARSE, owed.BIND, owed.EXECUTE, owed.CLOSE, owed.CLOSE)
)
# If the first fails, so does its connection; the other may be left behind.
_FIRST, _AGAIN = PREFIX + b"state", PREFIX + b"settings"
# Stands for what is set within a client's batch.
SETTINGS = Statement(_AGAIN, b"", b"\0\0", PLAIN)

# A connection that has one of these might cut a change of its state short.
_RISKY = frozenset(("statement_timeout", "transaction_timeout"))
# What has been taken once may be refused another time: it names something that may be gone.
_FICKLE = frozenset((
    ROLE, "default_tablespace", "temp_tablespaces", "default_table_access_method", "default_text_search_config",
))  # fmt: skip
# Reported, but not to be set.
READ_ONLY_PARAMETERS = frozenset((
    "server_version", "server_encoding", "integer_datetimes", "in_hot_standby", "is_superuser", "session_authorization",
))  # fmt: skip

# What is the same in every encoding, and needs no quotes of any kind.
_plain_name = re.compile(r"[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)*").fullmatch
_plain_value = re.compile(r"[A-Za-z0-9_.:/+=@-]*").fullmatch

# As servers spell the names of the parameters that they report.
display_names: dict[str, str] = {}


def status(name: str, value: str) -> bytes:
    """What tells a client that a reported parameter (in lower case) is this now."""
    return encode.parameter_status(display_names[name].encode(), value.encode("utf-8", "surrogateescape"))


class State:
    __slots__ = ("__weakref__", "parameters")

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.parameters = parameters


class Spoken:
    """Whom a State speaks for, by the parameter `guc` (None: it says nothing of it), all else of it, and how a server
    that has just that is told (b"" if it cannot be in this way)."""

    __slots__ = ("beside", "name", "telling")

    def __init__(self, name: str | None, beside: State, telling: bytes) -> None:
        self.name, self.beside, self.telling = name, beside, telling


_interned: WeakValueDictionary[frozenset[tuple[str, str]], State] = WeakValueDictionary()


def intern(parameters: Mapping[str, str]) -> State:
    key = frozenset(parameters.items())
    state = _interned.get(key)
    if state is None:
        state = State(dict(parameters))
        _interned[key] = state
    return state


EMPTY = intern({})


def with_parameter(state: State, name: str, value: str) -> State:
    if state.parameters.get(name) == value:
        return state
    return intern({**state.parameters, name: value})


@lru_cache(maxsize=4_096)
def spoken(state: State, guc: str) -> Spoken:
    parameters = state.parameters
    name = parameters.get(guc)
    plain = name is not None and is_plain(guc, name) and certain(parameters, parameters)
    beside = intern({key: value for key, value in parameters.items() if key != guc})
    return Spoken(name, beside, _set(guc, name) if name is not None and plain else b"")


def with_changes(state: State, changes: Mapping[str, str | None]) -> State:
    """None: no longer one of its parameters."""
    parameters = {name: value for name, value in state.parameters.items() if name not in changes}
    parameters.update((name, value) for name, value in changes.items() if value is not None)
    return intern(parameters)


def difference(has: State, needs: State, at_login: Mapping[str, str]) -> dict[str, str | None]:
    """What must be set so that a connection that has `has` comes to have `needs`.

    `at_login` holds what the server reported when the connection began (names in lower case). The value
    None means: back to what the connection began with.
    """
    changes: dict[str, str | None] = {}
    old, new = has.parameters, needs.parameters
    for name in old:
        if name not in new and old[name] != at_login.get(name):
            changes[name] = None
    for name, value in new.items():
        if old.get(name, at_login.get(name)) != value:
            changes[name] = value
    return changes


def certain(before: Mapping[str, str], needs: Mapping[str, str]) -> bool:
    """A change that a server has taken once will be taken again."""
    return _RISKY.isdisjoint(before) and _FICKLE.isdisjoint(needs)


def in_order(changes: Mapping[str, str | None], has: State, needs: State) -> list[Change]:
    """A role may not set all that the session's own user may: it is left first and taken last."""
    order = [change for change in changes.items() if change[0] != ROLE]
    if not (order or ROLE in changes):
        return order
    if has.parameters.get(ROLE, "none") != "none":
        order.insert(0, (ROLE, None))
    if ROLE in needs.parameters:
        order.append((ROLE, needs.parameters[ROLE]))
    return order


def set_config(changes: Sequence[Change], statement: bytes, portal: bytes = b"") -> bytes:
    """Parse, Bind, Execute for at most a few dozen changes, by a statement and portal of these names; no Sync."""
    calls: list[str] = []
    values: list[bytes | None] = []
    for name, value in changes:
        taken, raw = _argument(value)
        calls.append(f"pg_catalog.set_config(${len(values) + 1}, {taken % (len(values) + 2)}, false)")
        values.append(name.encode("utf-8", "surrogateescape"))
        values.append(raw)
    parse = encode.parse(statement, b"SELECT " + ", ".join(calls).encode())
    return parse + encode.bind(portal, statement, values) + encode.execute(portal)


def _argument(value: str | None) -> tuple[str, bytes | None]:
    """How a value is written and bound. The connection may still have the client encoding of whoever had it before,
    in which the bytes of a tenant's name would be another's; what is no UTF-8 is in the client's own."""
    if value is None or value.isascii():
        return "$%d", None if value is None else value.encode()
    try:
        return (
            "pg_catalog.convert_from($%d::pg_catalog.bytea, 'UTF8')",
            b"\\x" + value.encode().hex().encode(),
        )
    except UnicodeEncodeError:
        return "$%d", value.encode("utf-8", "surrogateescape")


def set_first(pipeline: Pipeline, changes: Sequence[Change], mark: bytes = b"") -> bytes:
    """Messages for ahead of a transaction, with their replies queued as dropped. They leave the unnamed statement, and
    an empty one of the name `mark`, if all of them succeed."""
    out = []
    for batch in batches(changes):
        out.append(set_config(batch, _FIRST))
        for entry in (owed.DROP_PARSE, owed.DROP_BIND, owed.DROP_EXECUTE):
            pipeline.expect(entry)
        out.append(encode.close(b"S", _FIRST))
        pipeline.expect(owed.DROP_CLOSE)
    if mark:
        out.append(encode.parse(mark, b""))
        pipeline.expect(owed.DROP_PARSE)
    out.append(encode.SYNC)
    pipeline.expect(owed.DROP_SYNC)
    return b"".join(out)


def look_for(pipeline: Pipeline, mark: bytes) -> bytes:
    """Messages that fail where that is missing, so that the server skips what stands behind them up to the next Sync, a
    Query too. They run nothing, and take it away."""
    for kind in (owed.DESCRIBE, owed.CLOSE):
        pipeline.expect(Expect(kind, DROP, crucial=True))
    return encode.describe(b"S", mark) + encode.close(b"S", mark)


def is_plain(name: str, value: str) -> bool:
    """They may stand in a text as they are."""
    return _plain_name(name) is not None and _plain_value(value) is not None


def set_within(pipeline: Pipeline, changes: Mapping[str, str]) -> bytes:
    """Messages for ahead of what is to run with these parameters only, with their replies queued as dropped: no Sync of
    their own. A SET takes no snapshot, so that a transaction may still say how it is isolated."""
    out = b""
    for name, value in changes.items():
        out += _set(name, value)
        expect_set(pipeline)
    return out


def expect_set(pipeline: Pipeline) -> None:
    """The replies to one of them."""
    for entry in _CRUCIAL:
        pipeline.expect(entry)


def _set(name: str, value: str) -> bytes:
    words = '"."'.join(name.split("."))
    text = f"SET \"{words}\" TO '{value}'".encode("ascii")
    asked = encode.parse(_FIRST, text) + encode.bind(b"", _FIRST, []) + encode.execute()
    return asked + encode.close(b"P", b"") + encode.close(b"S", _FIRST)


def set_again(pipeline: Pipeline, changes: Sequence[Change], *, tolerant: bool = False) -> bytes:
    """Messages for the middle of somebody's transaction, with their replies queued as dropped. They touch neither
    its unnamed statement nor its unnamed portal. Unless `tolerant`, an error is the client's."""
    out = []
    statement = None if tolerant else SETTINGS
    for batch in batches(changes):
        # An earlier batch may have failed between the two.
        out.append(encode.close(b"S", _AGAIN) + set_config(batch, _AGAIN, _AGAIN))
        out.append(encode.close(b"P", _AGAIN) + encode.close(b"S", _AGAIN))
        for kind in (owed.CLOSE, owed.PARSE, owed.BIND, owed.EXECUTE, owed.CLOSE, owed.CLOSE):
            pipeline.expect(Expect(kind, DROP, statement=statement, tolerant=tolerant))
    return b"".join(out)


def batches(changes: Sequence[Change]) -> list[Sequence[Change]]:
    return [changes[i : i + _SMALL_BATCH] for i in range(0, len(changes), _SMALL_BATCH)]
