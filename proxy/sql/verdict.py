"""Text to verdict: what a statement would leave behind for the next session on its server connection.

A text without a word that could matter gets the shared constant PLAIN for the price of one byte search (see
`words`). Others are parsed once and the verdict is kept by text. Nothing is ever raised for a text: what
cannot be read, or is too large to read, is a verdict that says so (`PinReason.UNINSPECTED`).

What depends on the session's settings (standard_conforming_strings, the client's encoding) is judged in both
ways. What the body of a stored function does when it is called cannot be seen here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from proxy.model import PinReason
from proxy.sql import constants, tree, words
from proxy.sql.hidden import Hidden
from proxy.sql.words import plain

# Above this a text is not parsed: it would hold up every other session for too long.
MAX_PARSE = 65_536
# Above this a verdict is not kept, and all kept texts together stay below MAX_KEPT_BYTES.
MAX_KEPT = 16_384
MAX_KEPT_BYTES = 8_388_608


@dataclass(frozen=True, slots=True)
class Verdict:
    """Names of parameters are in lower case. Order is that of the text, each name once.

    sets, resets: for the session (not LOCAL), by SET, RESET or set_config with a constant name. What comes of
        that is the caller's to find out.
    bound_names: numbers of the statement's parameters that name a parameter which it sets.
    touched: all parameters that the text names in a SET, also LOCAL ones and those of functions, roles and
        databases.
    changed: the same without what the session itself resets; "*" stands for all.
    hides: it may set parameters whose names cannot be told, and why.
    prepares: name and text of each PREPARE, if executing it has no effect of its own beyond its transaction (if it
        may have one, the PREPARE pins).
    executes: names of statements that it executes. deallocates: by name, each DEALLOCATE.
    looks: it may look at which statements are prepared.
    asks_sequences: it asks what number a sequence has given this session. sets_sequences: it says so itself.
    alters_role: it changes what all sessions of a role or database begin with, or a role's password.
    drops_databases: databases that must have no idle connection when the text runs.
    statements: how many there are; 0 if nobody has counted.
    unread: the lowercased text, if the parser did not take it.
    """

    pins: frozenset[PinReason] = frozenset()
    sets: tuple[str, ...] = ()
    resets: tuple[str, ...] = ()
    resets_all: bool = False
    bound_names: tuple[int, ...] = ()
    touched: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()
    hides: Hidden | None = None
    prepares: tuple[tuple[str, bytes], ...] = ()
    executes: tuple[str, ...] = ()
    looks: bool = False
    deallocates: tuple[str, ...] = ()
    deallocates_all: bool = False
    discards_all: bool = False
    unlistens: bool = False
    asks_sequences: bool = False
    sets_sequences: bool = False
    alters_role: bool = False
    drops_databases: tuple[str, ...] = ()
    statements: int = 0
    unread: bytes = b""

    @property
    def by_name(self) -> bool:
        """It has to do with statements that are known by their name in SQL."""
        return bool(self.prepares or self.executes or self.looks or self.deallocates)

    def touches_tenant(self, guc: str) -> bool:
        """It sets or resets the parameter by name, in whatever way.

        RESET ALL, DISCARD ALL and `hides` are told by their own fields.
        """
        name = constants.guc(guc)
        if self.unread:
            return words.sets(self.unread, name.encode("utf-8", "surrogateescape"))
        return name in self.touched


PLAIN = Verdict()


def inspect(text: bytes) -> Verdict:
    """The verdict by the parse tree alone."""
    if len(text) > MAX_PARSE:
        executed = words.executed(text)
        return (
            Verdict(executes=(executed[:63].decode(),), looks=words.looks(text.lower()))
            if executed
            else _unread(text)
        )
    try:
        found = tree.read(text)
    except tree.Unreadable:
        return _unread(text)
    return Verdict(
        pins=frozenset(found.pins),
        sets=tuple(found.sets),
        resets=tuple(found.resets),
        resets_all=found.resets_all,
        bound_names=tuple(found.bound_names),
        touched=frozenset(found.touched),
        changed=frozenset(found.changed),
        hides=found.hides,
        prepares=tuple(found.prepares),
        executes=tuple(found.executes),
        looks=found.looks or words.looks(text.lower()),
        deallocates=tuple(found.deallocates),
        deallocates_all=found.deallocates_all,
        discards_all=found.discards_all,
        unlistens=found.unlistens,
        asks_sequences=found.asks_sequences,
        sets_sequences=found.sets_sequences,
        alters_role=found.alters_role,
        drops_databases=tuple(found.drops_databases),
        statements=found.statements,
    )


def _unread(text: bytes) -> Verdict:
    low = text.lower()
    return Verdict(
        pins=frozenset({PinReason.UNINSPECTED}),
        hides=Hidden.UNREADABLE if words.hides_sets(low) else None,
        looks=words.looks(low),
        asks_sequences=words.asks_sequences(low),
        unread=low,
    )


def begins(text: bytes) -> bool:
    """The text begins a transaction block (asked in statement mode only). If in doubt it does."""
    if not words.may_begin(text):
        return False
    if len(text) > MAX_PARSE:
        return True
    try:
        return tree.begins(text)
    except tree.Unreadable:
        return True


class Judge:
    """Verdicts by text, the last ones kept."""

    __slots__ = ("_bytes", "_kept", "_max_entries")

    def __init__(self, max_entries: int = 4096) -> None:
        self._max_entries = max_entries
        self._kept: OrderedDict[bytes, Verdict] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def judge(self, text: bytes) -> Verdict:
        if plain(text):
            return PLAIN
        kept = self._kept
        verdict = kept.get(text)
        if verdict is not None:
            kept.move_to_end(text)
            return verdict
        verdict = inspect(text)
        if len(text) <= MAX_KEPT:
            kept[text] = verdict
            self._bytes += len(text)
            while len(kept) > self._max_entries or self._bytes > MAX_KEPT_BYTES:
                self._bytes -= len(kept.popitem(last=False)[0])
        return verdict
