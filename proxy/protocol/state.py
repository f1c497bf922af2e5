"""Session state as a value: the parameters a session needs, and the messages that bring a server to them.

A State is immutable and interned: two sessions that need the same parameters hold the same object, so
that "does this connection already have it" is one comparison. Names are lower case. The difference is
applied with `set_config` over the extended protocol with bound values; a NULL value takes a parameter
back to what the server connection began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakValueDictionary

from proxy.wire import encode

_SMALL_BATCH = 50


class State:
    __slots__ = ("__weakref__", "parameters")

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.parameters = parameters


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


def set_config(changes: Mapping[str, str | None]) -> bytes:
    """Parse, Bind, Execute of the unnamed statement for at most a few dozen changes; no Sync."""
    calls = ", ".join(
        f"pg_catalog.set_config(${2 * i + 1}, ${2 * i + 2}, false)" for i in range(len(changes))
    )
    values: list[bytes | None] = []
    for name, value in changes.items():
        values.append(name.encode("utf-8", "surrogateescape"))
        values.append(None if value is None else value.encode("utf-8", "surrogateescape"))
    return encode.parse(b"", b"SELECT " + calls.encode()) + encode.bind(b"", b"", values) + encode.execute()


def batches(changes: Mapping[str, str | None]) -> list[dict[str, str | None]]:
    items = list(changes.items())
    return [dict(items[i : i + _SMALL_BATCH]) for i in range(0, len(items), _SMALL_BATCH)]
