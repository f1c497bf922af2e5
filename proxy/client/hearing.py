"""What of a client's frames needs no server: a refusal that the next one gets, what is skipped behind it, and what a
session that may choose its tenant has its chooser hear (see `answering.py`).

A frame that is for a server as its first bytes show is not heard, so that such a session costs as little as others.
"""

from __future__ import annotations

from proxy.client.answering import DONE, PASS
from proxy.client.linking import Linking
from proxy.client.throttling import counted
from proxy.errors import ProtocolViolation
from proxy.model import PoolMode
from proxy.server.connection import IDLE, ServerConnection
from proxy.sql.opening import works
from proxy.wire import encode
from proxy.wire.decode import bind_names_within
from proxy.wire.frames import HEAD, HEADER_SIZE, Scanner

_QUERY, _FUNCTION, _SYNC, _FLUSH, _BIND, _PARSE = b"QFSHBP"
COPY_ENDS = b"cf"
SERVERLESS = b"SHcf"  # needs no server while none is linked
_SESSION_MODE = PoolMode.SESSION


class Hearing(Linking):
    __slots__ = ()

    def _answered(self, kind: int) -> bool:
        """Without a server: whether the frame needs none."""
        if self.answer:
            error, self.answer = self.answer, b""
            self.write(error)
            self.skipping = kind not in (_QUERY, _FUNCTION)
            if not self.skipping:
                self.write(encode.ready_for_query(self._status))
                return True
        bare = self.scanner.stop - self.scanner.start == HEADER_SIZE
        if self.skipping:
            if kind != _SYNC:
                return True
            self.skipping = False
        if kind == _SYNC and bare:
            self.write(encode.ready_for_query(b"I" if self.chooser is None else self.chooser.synced()))
            return True
        return (kind == _FLUSH and bare) or kind in COPY_ENDS

    def _is_heard(self, server: ServerConnection | None, kind: int) -> bool:
        """The frame is for the chooser: no server has a transaction of the session, and it may open one."""
        if server is not None and (server.pipeline.owes() or self.unsynced or server.status != IDLE):
            return False
        chooser = self.chooser
        if not chooser.calm:
            return True
        return not ((chooser.prompt and self._at_once()) or self._is_work(self.scanner, kind))

    def _is_work(self, scanner: Scanner, kind: int) -> bool:
        """The frame is for a server, as one can see at once."""
        at = scanner.start + HEADER_SIZE
        if kind == _QUERY:
            return works(scanner.data, at)
        if kind == _PARSE:
            return works(scanner.data, scanner.data.find(b"\0", at) + 1)
        if kind != _BIND:
            return False
        try:
            name = bind_names_within(scanner.data, at, scanner.stop)[1]
        except ProtocolViolation:
            return False
        statement = self.statements.get(name) if name else self.unnamed
        return statement is not None and works(statement.text, 0)

    @property
    def _status(self) -> bytes:
        """Of a transaction that no server has."""
        return b"I" if self.chooser is None else self.chooser.tenancy.status

    def _hear(self, server: ServerConnection | None, kind: int, told: int) -> int:
        """What of a session that may choose its tenant needs no server."""
        chooser = self.chooser
        if chooser is None:
            return PASS
        ours = server is None or chooser.answers or self.skipping
        if ours and (kind in SERVERLESS or self.skipping or self.answer) and self._answered(kind):
            return DONE
        scanner = self.scanner
        heard = chooser.hear(kind, scanner.data[scanner.start : scanner.stop], told != HEAD)
        return DONE if heard == PASS and self.answer and self._answered(kind) else heard

    def _at_once(self) -> bool:
        """The BEGIN that a server gets at once, and nothing else has come."""
        chooser = self.chooser
        if self.scanner.data != chooser.prompt:
            return False
        # A connection that it has waited for is its own for this BEGIN only; one that it keeps could not be let go.
        if self.server is not None and (self.pins or self.mode is _SESSION_MODE):
            return False
        if not counted(self):
            return False
        chooser.begun = chooser.begin
        return True

    def _begins_again(self, kind: int, told: int) -> bool:
        scanner = self.scanner
        if told == HEAD or self._is_work(scanner, kind):
            self.chooser.begun = None
            return False
        return bool(self.chooser.begins_again(kind, scanner.data[scanner.start : scanner.stop]))

    def _opens(self, server: ServerConnection, kind: int, told: int) -> bool:
        """It is to be heard behind the end of a batch that has done no work."""
        scanner = self.scanner
        if told == HEAD or self._is_work(scanner, kind):
            return False
        return bool(self.chooser.opens(server, kind, scanner.data[scanner.start : scanner.stop]))
