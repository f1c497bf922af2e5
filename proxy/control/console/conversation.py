"""A client of the console: simple and extended queries, one at a time, answered from views and actions."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy import log
from proxy.client.plane import Plane
from proxy.control.console import commands, rows
from proxy.control.fleet import Control
from proxy.control.views import View
from proxy.errors import ClientError, ProtocolViolation, TiergateError
from proxy.net.transport import Transport
from proxy.wire import decode, encode
from proxy.wire.frames import FROM_CLIENT, HEAD, MORE, Scanner

if TYPE_CHECKING:
    from proxy.client.applicants import Login
    from proxy.net.stream import LoginStream

_log = log.get("console")
_MAX_STATEMENT = 65_536
_MAX_NAMES = 1_000  # of prepared statements, and of portals
_MAX_WAITING = 262_144  # bytes of messages that are not done yet; beyond, the client's socket is left alone
_PARAMETERS = (
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
)


@dataclass(slots=True)
class _Statement:
    text: str
    types: rows.Oids | None = None  # of its columns, once they were described


@dataclass(slots=True)
class _Portal:
    statement: _Statement
    formats: tuple[int, ...] = ()
    view: View | None = None  # computed by Describe already


class TooManyNames(ClientError):
    sqlstate = "54000"


class Console(asyncio.Protocol):
    """Messages queue up and are done one after the other by one task, since PAUSE may take its time.

    Both ways are bounded: nothing more is done for a client that does not read its answers, and nothing more is
    read from one whose messages wait.
    """

    def __init__(self, plane: Plane, control: Control, login: Login, transport: Transport) -> None:
        self.on_close: Callable[[Console], None] = lambda _: None
        self._control = control
        self._is_admin = login.user.name in plane.options.admin_users
        self._as_pgbouncer = login.database == "pgbouncer"
        self._user = login.user.name
        self._transport = transport
        self._scanner = Scanner(FROM_CLIENT, max_read=_MAX_STATEMENT)
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._waiting_size = 0
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._task: asyncio.Task[None] | None = None
        self._statements: dict[bytes, _Statement] = {}
        self._portals: dict[bytes, _Portal] = {}
        self._skipping = False
        self._closed = False

    # --- the socket ---------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        scanner = self._scanner
        try:
            scanner.feed(data)
            while (told := scanner.next()) != MORE:
                if told == HEAD:
                    raise ProtocolViolation("statement too long")
                self._waiting.append((scanner.kind, scanner.data[scanner.start + 5 : scanner.stop]))
                self._waiting_size += scanner.stop - scanner.start
        except ProtocolViolation as error:
            self._write(encode.refusal(error, "FATAL"))
            self.close()
            return
        if self._waiting_size > _MAX_WAITING:
            self._transport.pause_reading()
        if self._task is None and self._waiting:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()

    def end(self, error: TiergateError) -> None:
        """Ends it with a FATAL of ours, at once: one that does not read gets no more."""
        if not self._may_write.is_set():
            self._transport.abort()
        self._write(encode.refusal(error, "FATAL"))
        self.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._may_write.set()
        self._waiting.clear()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._transport.close()
        self.on_close(self)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    async def _work(self) -> None:
        try:
            while self._waiting:
                kind, body = self._waiting.popleft()
                before = self._waiting_size
                self._waiting_size -= len(body) + 5
                if self._waiting_size <= _MAX_WAITING < before and not self._transport.is_closing():
                    self._transport.resume_reading()
                await self._handle(chr(kind), body)
                await self._may_write.wait()
        finally:
            self._task = None

    # --- messages -----------------------------------------------------------------------------------

    async def _handle(self, kind: str, body: bytes) -> None:
        if kind == "X":
            self.close()
        elif kind == "S":
            self._skipping = False
            self._portals.clear()
            self._write(encode.ready_for_query())
        elif self._skipping:
            return
        elif kind == "Q":
            await self._query(body)
        else:
            try:
                await self._extended(kind, body)
            except Exception as error:
                self._skipping = True
                self._say(error)

    async def _query(self, body: bytes) -> None:
        try:
            statements = commands.split(decode.query(body).decode("utf-8", "replace"))
            if not statements:
                self._write(encode.EMPTY_QUERY)
            for statement in statements:
                answer = await self._execute(statement)
                if answer.view is not None:
                    types = rows.oids(answer.view)
                    self._write(rows.description(answer.view, types) + rows.data(answer.view, types))
                self._write(_complete(answer))
                await self._may_write.wait()
        except Exception as error:
            self._say(error)
        self._write(encode.ready_for_query())

    async def _extended(self, kind: str, body: bytes) -> None:
        match kind:
            case "P":
                parse = decode.parse(body)
                statements = commands.split(parse.text.decode("utf-8", "replace"))
                if len(statements) > 1:
                    raise commands.CommandSyntax("cannot insert multiple commands into a prepared statement")
                _check_number(self._statements, parse.name)
                self._statements[parse.name] = _Statement(statements[0] if statements else "")
                self._write(encode.PARSE_COMPLETE)
            case "B":
                portal, name, _ = decode.bind_names(body)
                _check_number(self._portals, portal)
                self._portals[portal] = _Portal(self._statement(name), rows.result_formats(body))
                self._write(encode.BIND_COMPLETE)
            case "D":
                await self._describe(*decode.target(body))
            case "E":
                await self._execute_portal(decode.cstring(body)[0])
            case "C":
                what, name = decode.target(body)
                (self._statements if what == b"S" else self._portals).pop(name, None)
                self._write(encode.CLOSE_COMPLETE)
            case "H":
                return
            case _:
                raise ProtocolViolation(f"message type {kind!r} is not understood by the console")

    def _statement(self, name: bytes) -> _Statement:
        if name not in self._statements:
            error = commands.CommandSyntax(
                f'prepared statement "{name.decode(errors="replace")}" does not exist'
            )
            error.sqlstate = "26000"
            raise error
        return self._statements[name]

    async def _describe(self, what: bytes, name: bytes) -> None:
        formats: tuple[int, ...] = ()
        view = None
        if what == b"S":
            statement = self._statement(name)
            self._write(encode.frame(b"t", b"\0\0"))
            if _is_show(statement.text):
                view = (await self._execute(statement.text)).view
        else:
            portal = self._portal(name)
            statement, formats = portal.statement, portal.formats
            if _is_show(statement.text):
                view = portal.view = (await self._execute(statement.text)).view
        if view is None:
            self._write(encode.NO_DATA)
            return
        statement.types = statement.types or rows.oids(view)
        self._write(rows.description(view, statement.types, formats))

    def _portal(self, name: bytes) -> _Portal:
        if name not in self._portals:
            error = commands.CommandSyntax(f'portal "{name.decode(errors="replace")}" does not exist')
            error.sqlstate = "34000"
            raise error
        return self._portals[name]

    async def _execute_portal(self, name: bytes) -> None:
        portal = self._portal(name)
        statement = portal.statement
        if not statement.text:
            self._write(encode.EMPTY_QUERY)
            return
        view, portal.view = portal.view, None
        answer = commands.Answer("SHOW", view) if view is not None else await self._execute(statement.text)
        if answer.view is not None:
            types = statement.types or rows.oids(answer.view)
            self._write(rows.data(answer.view, types, portal.formats))
        self._write(_complete(answer))

    async def _execute(self, statement: str) -> commands.Answer:
        answer = await commands.execute(
            self._control,
            statement,
            may_write=self._is_admin,
            as_pgbouncer=self._as_pgbouncer,
        )
        if not _is_show(statement):
            _log.info("console command", user=self._user, command=commands.told(statement))
        return answer

    def _say(self, error: Exception) -> None:
        if not isinstance(error, TiergateError):
            _log.exception("console command broke", error)
            error = TiergateError()
        self._write(encode.refusal(error))


def _check_number(names: Collection[bytes], name: bytes) -> None:
    if len(names) >= _MAX_NAMES and name not in names:
        raise TooManyNames(f"more than {_MAX_NAMES} prepared statements or portals")


def _is_show(statement: str) -> bool:
    return statement[:4].lower() == "show"


def _complete(answer: commands.Answer) -> bytes:
    notices = b"".join(encode.notice(text) for text in answer.notices)
    return notices + encode.command_complete(answer.tag)


def open_console(plane: Plane, control: Control, login: Login, stream: LoginStream) -> Console:
    """Says welcome and hands the socket to a new Console."""
    console = Console(plane, control, login, stream.transport)
    parameters = (("server_version", f"{control.version}/tiergate"), *_PARAMETERS)
    out = [encode.parameter_status(name.encode(), value.encode()) for name, value in parameters]
    out.append(encode.backend_key_data(*plane.new_key(login.protocol_minor)))
    out.append(encode.ready_for_query())
    stream.write(b"".join(out))
    rest = stream.take_over(console)
    if rest:
        console.data_received(rest)
    return console
