"""What is asked of a server once a transaction is over: what its parameters are now, and what is left on the connection.

Nobody here knows what a rollback, a savepoint, a function or a RESET makes of a parameter; the server does. Names are
bound, and all that is called is qualified, since it runs under the client's search_path and role.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.errors import ServerProtocolError
from proxy.model import PinReason
from proxy.protocol import pipeline as owed
from proxy.protocol.pipeline import DROP, Expect, Pipeline
from proxy.protocol.statements import PREFIX
from proxy.wire import decode, encode

_STATEMENT = PREFIX + b"inquiry"
_VALUE = b"pg_catalog.current_setting($%d, true)"
# Costs the server a millisecond: all its parameters are looked through.
_SOURCES = (
    b"SELECT pg_catalog.lower(s.name) FROM pg_catalog.pg_settings s WHERE s.source OPERATOR(pg_catalog.=) 'session'"
    b" AND pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) ANY (ARRAY[%s]::pg_catalog.text[])"
)
# Whether there is still a cause. All objects of the session's temporary schema depend on it: where that is empty
# there is none, of whatever kind.
_CAUSES = {
    PinReason.LISTEN: b"SELECT FROM pg_catalog.pg_listening_channels()",
    PinReason.ADVISORY_LOCK: (
        b"SELECT FROM pg_catalog.pg_locks l WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory'"
        b" AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
    ),
    PinReason.TEMP_TABLE: (
        b"SELECT FROM pg_catalog.pg_depend d WHERE d.refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid"
        b" AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()"
    ),
    PinReason.HOLD_CURSOR: b"SELECT FROM pg_catalog.pg_cursors c WHERE c.is_holdable",
}
# An error would be written to the server's log, were it not caught there.
_DRAW = (
    b"DO LANGUAGE plpgsql $$BEGIN PERFORM pg_catalog.lastval();"
    b" PERFORM pg_catalog.set_config('tiergate.drawn', 'yes', true);"
    b" EXCEPTION WHEN object_not_in_prerequisite_state THEN"
    b" PERFORM pg_catalog.set_config('tiergate.drawn', 'no', true);"
    b" WHEN OTHERS THEN PERFORM pg_catalog.set_config('tiergate.drawn', 'yes', true); END$$"
)
_DRAWN = b"SELECT pg_catalog.current_setting('tiergate.drawn')"
ENDING = frozenset(_CAUSES)  # pins whose end can be seen


class Inquiry:
    """One question and its answer.

    values: of the parameters `names`, None for one that the server does not know. in_session: those of `sourced` whose
    value was set in the session, and is not the default or what the connection began with. gone: of `reasons`, those
    that hold no longer. too_long: a value is too long to be had. drawn: numbers were drawn from sequences, if that is
    asked (`sequences`).
    """

    __slots__ = (
        "drawn",
        "gone",
        "in_session",
        "names",
        "reasons",
        "sequences",
        "sourced",
        "too_long",
        "values",
    )

    def __init__(
        self,
        names: Sequence[str],
        sourced: Sequence[str],
        reasons: Sequence[PinReason],
        sequences: bool = False,
    ) -> None:
        self.names = names
        self.sourced = sourced
        self.reasons = reasons
        self.sequences = sequences
        self.drawn = True
        self.values: dict[str, str | None] = {}
        self.in_session: set[str] = set()
        self.gone: set[PinReason] = set()
        self.too_long = False

    def messages(self, pipeline: Pipeline) -> bytes:
        """For where no transaction is open, with their replies queued as dropped."""
        out = []
        if self.names:
            columns = b", ".join([_VALUE % (number + 1) for number in range(len(self.names))])
            out.append(_asked(pipeline, b"SELECT " + columns, self.names, self._learn_values))
        if self.sourced:
            numbers = b", ".join([b"$%d" % (number + 1) for number in range(len(self.sourced))])
            out.append(_asked(pipeline, _SOURCES % numbers, self.sourced, self._learn_source))
        if self.reasons:
            columns = b", ".join([b"EXISTS (%s)" % _CAUSES[reason] for reason in self.reasons])
            out.append(_asked(pipeline, b"SELECT " + columns, (), self._learn_causes))
        if self.sequences:
            out.append(_asked(pipeline, _DRAW, (), None))
            out.append(_asked(pipeline, _DRAWN, (), self._learn_drawn))
        out.append(encode.SYNC)
        pipeline.expect(owed.DROP_SYNC)
        return b"".join(out)

    def _row(self, body: bytes, whole: bool, count: int) -> list[bytes | None]:
        """Nothing of a row that is too long."""
        if not whole:
            self.too_long = True
            return []
        values = decode.data_row(body)
        if len(values) != count:
            raise ServerProtocolError(internal="an answer to what was not asked")
        return values

    def _learn_values(self, kind: int, body: bytes, whole: bool) -> None:
        for name, value in zip(self.names, self._row(body, whole, len(self.names)), strict=whole):
            self.values[name] = None if value is None else value.decode("utf-8", "surrogateescape")

    def _learn_source(self, kind: int, body: bytes, whole: bool) -> None:
        for name in self._row(body, whole, 1):
            self.in_session.add((name or b"").decode("utf-8", "surrogateescape"))

    def _learn_drawn(self, kind: int, body: bytes, whole: bool) -> None:
        self.drawn = self._row(body, whole, 1) != [b"no"]

    def _learn_causes(self, kind: int, body: bytes, whole: bool) -> None:
        for reason, there in zip(self.reasons, self._row(body, whole, len(self.reasons)), strict=whole):
            if there == b"f":
                self.gone.add(reason)


def _asked(
    pipeline: Pipeline, text: bytes, values: Sequence[str], learn: Callable[[int, bytes, bool], None] | None
) -> bytes:
    for entry in (owed.DROP_PARSE, owed.DROP_BIND, Expect(owed.EXECUTE, DROP, learn=learn), owed.DROP_CLOSE):
        pipeline.expect(entry)
    bound = [value.encode("utf-8", "surrogateescape") for value in values]
    return (
        encode.parse(_STATEMENT, text)
        + encode.bind(b"", _STATEMENT, bound)
        + encode.execute()
        + encode.close(b"S", _STATEMENT)
    )
