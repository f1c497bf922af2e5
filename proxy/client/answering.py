"""What opens a transaction, answered without a server, as PostgreSQL would answer it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from proxy.client import failing
from proxy.client.choosing import Choice
from proxy.client.portals import Portal, bound, outlive, parameters, shown, unknown
from proxy.client.preparing import wanted
from proxy.client.throttling import counted
from proxy.errors import (
    DuplicatePortal,
    DuplicateStatement,
    FailedTransaction,
    ProtocolViolation,
    SpentPortal,
    TenantChangeRefused,
    TiergateError,
)
from proxy.protocol.statements import Statement
from proxy.protocol.tenancy import IN_FAILED_TRANSACTION, Block, set_local_outside
from proxy.server.connection import IDLE, IN_TRANSACTION
from proxy.sql.opening import Opening, concerns_session_only
from proxy.sql.resetting import resets_first
from proxy.sql.steps import Step, Verb
from proxy.wire import decode, encode
from proxy.wire.decode import bind_names, parse_fields

if TYPE_CHECKING:
    from proxy.client.linking import Linking
    from proxy.model import Tenant
    from proxy.server.connection import ServerConnection

PASS, DONE, AGAIN, SEEK = 0, 1, 2, 3
_QUERY, _PARSE, _BIND, _DESCRIBE, _EXECUTE, _CLOSE, _CALL = b"QPBDECF"
_TEXT = 25
_ASIDE = b"SHDC"  # no work
_NAME, _ASK, _BEGIN, _NONE, _HELD = Verb.NAME, Verb.ASK, Verb.BEGIN, Block.NONE, Block.HELD
_BEGINNERS = frozenset({Verb.BEGIN, Verb.SET_TRANSACTION, Verb.SAVEPOINT, Verb.NAME})
_QUIET = 8  # after so many blocks that have named no tenant the next is not held back,
_DISTURBED = -100  # and after one that was sent in vain it takes so many more
_SUSPENDED = encode.frame(b"s", b"")


class Chooser(Choice):
    """`hear` is called with what the client sends while no server has a transaction of the session."""

    __slots__ = ("again",)

    def __init__(self, session: Linking, home: Tenant) -> None:
        super().__init__(session, home)
        self.again = b""  # what is left of the frame that was heard, to be read in its place

    def hear(self, kind: int, frame: bytes, whole: bool) -> int:
        """PASS: it is for a server, or has an error to answer. DONE: it has been answered. AGAIN: `again` is to be
        read in its place. SEEK: it is to be heard again when `seek` is over."""
        body = frame[5:]
        if self.calm and self.quiet >= _QUIET and kind == _QUERY and whole and self._begins(frame):
            return PASS
        self.calm = False
        try:
            if not whole:
                return self._pass(None)
            if self.tenancy.block is Block.FAILED and failing.hear(self._session, kind, body):
                return DONE
            if kind == _QUERY:
                return self._query(decode.query(body))
            if kind == _PARSE:
                return self._parse(*parse_fields(body))
            if kind == _BIND:
                return self._bind(body)
            if kind == _DESCRIBE:
                return self._describe(*decode.target(body))
            if kind == _EXECUTE:
                return self._execute(*decode.execute(body))
            if kind == _CLOSE:
                return self._close(*decode.target(body))
            return self._pass(None) if kind == _CALL else PASS
        except ProtocolViolation as error:
            if self._session.tenant.name or self.tenancy.value.name:
                return PASS  # the server says what is wrong with it
            self._session.refuse(error)
            return PASS

    def _begins(self, frame: bytes) -> bool:
        """It is a BEGIN by itself of a session whose blocks name no tenant, which a server gets at once."""
        session = self._session
        if session.server is not None or session.scanner.data != frame or not frame.endswith(b"\0"):
            return False
        step = self.step(frame[5:-1])
        if step is None or step.verb is not _BEGIN or not self.can(step) or not counted(session):
            return False
        self.prompt, self.begin, self.begun = frame, step, step
        return True

    def begins_again(self, kind: int, frame: bytes) -> bool:
        """The first request of a block that was sent at once, which may be an opening: whether the block is held back
        after all, and its server rid of it."""
        session = self._session
        server = session.server
        if server is None or server.pipeline or session.unsynced or kind in _ASIDE:
            return False
        begun, self.begun = self.begun, None
        if server.status != IN_TRANSACTION:
            return False
        try:
            opening = self._opening(kind, frame)
        except ProtocolViolation:
            return False
        if begun is None or opening is None or _BEGINNERS.isdisjoint(step.verb for step in opening.steps):
            return False
        self.quiet, self.prompt = _DISTURBED, b""
        self.calm = False
        self.tenancy.control(begun)
        session.server = None
        session.step("unlink")
        if session.write_paused:
            server.transport.resume_reading()
        if server.write_paused:
            session.resume_client()
        if session.doubts is not None:
            session.doubts, server.dirty = None, True
        session.pool.rollback(server)
        return True

    def _opening(self, kind: int, frame: bytes) -> Opening | None:
        """Raises ProtocolViolation."""
        if kind == _BIND:
            statement = self._statement(bind_names(frame[5:])[1])
            text = b"" if statement is None else statement.text
        elif kind == _QUERY:
            text = decode.query(frame[5:])
        elif kind == _PARSE:
            text = parse_fields(frame[5:])[1]
        else:
            return None
        return self._session.plane.openings.of(text)

    def opens(self, server: ServerConnection, kind: int, frame: bytes) -> bool:
        """It opens a transaction behind a batch that has no Sync yet and has done no work: some drivers prepare
        statements so, with a Flush, and a server would take it for the same transaction."""
        if server.status != IDLE or server.pipeline.skipping:
            return False
        try:
            if kind == _BIND:
                return self._known(bind_names(frame[5:])[1]) is not None
            opening = self._opening(kind, frame)
        except ProtocolViolation:
            return False
        return opening is not None and self.can(opening.steps[0])

    def _pass(self, text: bytes | None) -> int:
        """A text, or what has none, is for a server."""
        if self.tenancy.block is Block.FAILED:
            self._session.refuse(FailedTransaction(IN_FAILED_TRANSACTION))
        elif not self.tenancy.value.name and (text is None or not concerns_session_only(text)):
            self._session.refuse(self.none_chosen())
        else:
            self.batch = False
        return PASS

    def _query(self, text: bytes) -> int:
        session, tenancy = self._session, self.tenancy
        opening = self.opening(text)
        if opening is None and tenancy.block is _NONE and tenancy.home.name and resets_first(text):
            tenancy.begin()
            tenancy.name(tenancy.home, local=False)
        if opening is None or opening.typed or not self.can(opening.steps[0]):
            return self._pass(text)
        if opening.statements > 1 and opening.steps[0].verb is Verb.SET_TRANSACTION and not tenancy.holds:
            return self._pass(text)  # it is for the transaction that the text is
        for step in opening.steps:
            if self.must_seek(step, step.value):
                return SEEK
        several = opening.statements > 1
        if several:
            tenancy.begin()
        session.unnamed = session.unnamed_by = None
        out: list[bytes] = []
        rest = opening.rest
        for step in opening.steps:
            if not self.can(step):
                rest = step.start
                break
            try:
                if step.columns:
                    self._choose(step, step.value, step.local)
                    rest = step.start
                    break
                row = self._described(step, False) if step.column else b""
                out.append(row + self._perform(step, step.value, step.local, not several, True))
            except TiergateError as error:
                self.fail(error, b"".join(out))
                session.write(encode.ready_for_query(tenancy.status))
                return DONE
        if rest < len(text):
            session.write(b"".join(out))
            self.again = encode.query(_blank(text[:rest]) + text[rest:])
            return AGAIN
        if tenancy.block is _NONE:
            tenancy.end(True)
        out.append(encode.ready_for_query(tenancy.status))
        session.write(b"".join(out))
        session.idle_since = monotonic()
        return DONE

    def _choose(self, step: Step, value: str | None, local: bool) -> None:
        """The tenant is chosen by a statement that sets other parameters as well, which a server is to do."""
        self.tenancy.check(step)
        tenant = self._find(value)
        if tenant.name != value:
            raise TenantChangeRefused("beside other parameters, the tenant is chosen by its name")
        self.tenancy.begin()
        self.tenancy.name(tenant, local=local)

    def _perform(self, step: Step, value: str | None, local: bool, alone: bool, simple: bool) -> bytes:
        """What an Execute of it is answered with. `alone`: it is a transaction of its own; `simple`: of a Query."""
        tenancy = self.tenancy
        if step.verb not in (_NAME, _ASK):
            said = tenancy.control(step)
            self.portals, warnings = outlive(self.portals, step, tenancy)
            return warnings + said
        tenancy.check(step)
        shown, warning = tenancy.value.name, b""
        if step.verb is _NAME:
            tenant = self._find(value)
            shown = tenant.name
            if local and tenancy.block is _NONE and (alone or not simple) and not step.column:
                warning = set_local_outside()
            at_once = alone and tenancy.block is _NONE
            if not (at_once and local):
                tenancy.begin()
                tenancy.name(tenant, local=local)
            if at_once:
                tenancy.end(True)
        row = encode.data_row([shown]) if step.column else b""
        return warning + row + encode.command_complete(step.tag)

    def _statement(self, name: bytes) -> Statement | None:
        return self._session.statements.get(name) if name else self._session.unnamed

    def _pass_use_of(self, name: bytes) -> int:
        """A statement of that name is for a server."""
        statement = self._statement(name)
        return self._pass(None if statement is None else statement.text)

    def _known(self, name: bytes) -> tuple[Statement, Step] | None:
        statement = self._statement(name)
        if statement is None or (name and not self._session.maps_statements):
            return None
        step = self.step(statement.text)
        return None if step is None or not self.can(step) else (statement, step)

    def _parse(self, name: bytes, text: bytes, oids: bytes) -> int:
        session = self._session
        step = self.step(text)
        failed = self.tenancy.block is Block.FAILED  # then what comes here may be parsed
        if (not failed and (step is None or not self.can(step))) or (name and not session.maps_statements):
            return self._pass(text)

        def parse() -> bytes:
            verdict = session.judge.judge(text)
            if not name:
                session.unnamed, session.unnamed_by = Statement(b"", text, oids, verdict), None
            elif wanted(session, name) is not None:
                raise DuplicateStatement(f'prepared statement "{shown(name)}" already exists')
            else:
                session.name_statement(name, session.plane.pools.catalog.statement(text, oids, verdict))
            return encode.PARSE_COMPLETE

        return self._answer(parse)

    def _answer(self, answer: Callable[[], bytes]) -> int:
        self.batch = True
        try:
            self._session.write(answer())
        except TiergateError as error:
            self.fail(error, b"")
            self._session.skipping = True
        return DONE

    def _bind(self, body: bytes) -> int:
        portal, name, at = bind_names(body)
        found = self._known(name)
        if found is None:
            return self._pass_use_of(name)
        if found[1].columns:
            return self._bind_several(*found, bound(found[1], name, body, at))

        def bind() -> bytes:
            self.tenancy.check(found[1])
            made = bound(found[1], name, body, at)
            if portal and portal in self.portals:
                raise DuplicatePortal(f'cursor "{shown(portal)}" already exists')
            made.depth, made.late = self.tenancy.depth, self.tenancy.block is Block.FAILED
            self.portals[portal] = made
            return encode.BIND_COMPLETE

        return self._answer(bind)

    def _bind_several(self, statement: Statement, step: Step, given: Portal) -> int:
        if self.must_seek(step, given.value):
            return SEEK
        try:
            self._choose(step, given.value, given.local)
        except TiergateError as error:
            self.batch = True
            self.fail(error, b"")
            self._session.skipping = True
            return DONE
        return self._pass(statement.text)

    def _describe(self, kind: bytes, name: bytes) -> int:
        if kind == b"P":
            portal = self.portals.get(name)
            if portal is None:
                return self._pass_portal(name)
            return self._answer(lambda: self._described(portal.step, portal.binary))
        found = self._known(name)
        if found is None:
            return self._pass_use_of(name)
        statement, step = found
        return self._answer(lambda: parameters(step, statement.oids) + self._described(step, False))

    def _described(self, step: Step, binary: bool) -> bytes:
        columns = step.columns or (step.column,)
        said = [(column, _TEXT, int(binary)) for column in columns]
        return encode.row_description(said) if step.column else encode.NO_DATA

    def _execute(self, name: bytes, most: int) -> int:
        portal = self.portals.get(name)
        if portal is None:
            return self._pass_portal(name)
        if not portal.spent and self.must_seek(portal.step, portal.value):
            return SEEK

        def execute() -> bytes:
            if portal.spent:
                if not portal.step.column:
                    raise SpentPortal(f'portal "{shown(name)}" cannot be run')
                return encode.command_complete(
                    "SELECT 0" if portal.step.tag == "SELECT 1" else portal.step.tag
                )
            portal.spent = portal.failed = True
            said = self._perform(portal.step, portal.value, portal.local, False, False)
            portal.failed = False
            if portal.step.column and most == 1:
                return said.removesuffix(encode.command_complete(portal.step.tag)) + _SUSPENDED
            return said

        return self._answer(execute)

    def _pass_portal(self, name: bytes) -> int:
        """One that a server may have, but not that of a block of which no server knows."""
        if self.tenancy.block is not _HELD or self._session.server is not None:
            return self._pass(b"")

        def refuse() -> bytes:
            raise unknown(name)

        return self._answer(refuse)

    def _close(self, kind: bytes, name: bytes) -> int:
        session = self._session
        if kind == b"S":
            if name and not session.maps_statements:
                return self._pass(b"")
            if not name:
                session.unnamed = session.unnamed_by = None
            elif session.statements.pop(name, None) is not None:
                if session.described:
                    session.described.pop(name, None)
            elif session.by_sql:
                session.by_sql.pop(name, None)
        elif self.portals.pop(name, None) is None:
            return self._pass(b"")
        return self._answer(lambda: encode.CLOSE_COMPLETE)

    def synced(self) -> bytes:
        """The Sync of a batch that is answered here: the transaction's status."""
        self.batch = False
        self._session.idle_since = monotonic()
        if self.tenancy.block is _NONE:
            self.tenancy.end(True)
            self.portals.clear()
        return self.tenancy.status


def _blank(text: bytes) -> bytes:
    """Spaces in place of what has been done, so that an error's position is still that in the whole text."""
    return b"".join(b"\n" if byte == 10 else b" " for byte in text if not 0x80 <= byte < 0xC0)
