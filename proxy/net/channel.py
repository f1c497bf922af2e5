"""Messages between the supervisor and a worker over a socket pair: told, or asked and answered.

On the wire: four bytes of length, then a JSON array `[number, kind, fields]`. Number 0 is told and wants no
answer; n > 0 asks; -n answers n, with kind "" for an answer and "error" for a TiergateError of the other side.
Fields are what JSON can say; bytes travel as latin-1 text.

Messages are handled in the order in which they were sent. A handler that is a plain function is done before the
next message is looked at; one that awaits runs beside those that follow. An answer that comes after the asker has
given up is dropped, so what must not be lost is told, never asked.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from proxy import errors, log
from proxy.errors import ShuttingDown, TiergateError

Fields = dict[str, Any]
Handler = Callable[[Fields], Awaitable[Fields | None] | Fields | None]

MAX_MESSAGE = 64 << 20
MAX_UNREAD = 128 << 20

_log = log.get("channel")


class ChannelLost(TiergateError):
    """The other process is gone, or was already when it was spoken to."""

    sqlstate = "57P03"


class NoAnswer(TiergateError):
    """The other process has not answered in time."""

    sqlstate = "57P03"


class Channel(asyncio.Protocol):
    """`lost` is called once when the other side goes, reads no more or talks nonsense; not after `close`."""

    def __init__(self, handlers: Mapping[str, Handler], lost: Callable[[], None]) -> None:
        self._handlers = handlers
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._asked: dict[int, asyncio.Future[Fields]] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = False

    async def open(self, sock: socket.socket, handed: Fields | None = None) -> None:
        """Speaks over one end of a socket pair, which belongs to the channel from here on.

        `handed` is what `hand_on` gave in another program that has spoken over it before.
        """
        if handed is not None:
            self._number = handed["number"]
            self._unread += handed["unread"].encode("latin-1")
        sock.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    # --- to the other side ----------------------------------------------------------------------------

    def tell(self, kind: str, **fields: Any) -> None:
        """Says it without waiting; a lost channel swallows it."""
        self._send(0, kind, fields)

    async def ask(self, kind: str, timeout: float | None = 5.0, **fields: Any) -> Fields:
        """The answer. Raises what the other side raised, ChannelLost, or NoAnswer after `timeout` (None: never)."""
        if self.closed or self._transport is None:
            raise ChannelLost("the other process is gone")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._send(number, kind, fields)
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise NoAnswer(f"the other process has not answered within {timeout} s", internal=kind) from None
        finally:
            self._asked.pop(number, None)

    def _send(self, number: int, kind: str, fields: Fields) -> None:
        if self.closed or self._transport is None:
            return
        body = json.dumps((number, kind, fields), separators=(",", ":")).encode()
        if len(body) > MAX_MESSAGE:
            raise TiergateError("too much for one message", internal=f"{kind}: {len(body)} bytes")
        self._transport.write(len(body).to_bytes(4, "big") + body)
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            _log.error("the other process reads no more", kind=kind)
            self._end()

    def close(self) -> None:
        """Ends it from this side; what was said is still sent, `lost` is not called."""
        self._lost = _nothing
        self._finish()
        if self._transport is not None:
            self._transport.close()

    # --- an upgrade ---------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether something that was asked here has no answer yet, or an answer is not sent."""
        unsent = self._transport is not None and self._transport.get_write_buffer_size() > 0
        return bool(self._tasks) or unsent

    def pause(self) -> None:
        """Handles no more messages; the other side does not notice. What is under way is answered as not done."""
        if not self.closed and self._transport is not None:
            self._transport.pause_reading()
        for task in self._tasks:
            task.cancel()

    def resume(self) -> None:
        if not self.closed and self._transport is not None:
            self._transport.resume_reading()

    def hand_on(self) -> Fields:
        """For the program that takes over, of a channel that is paused; the socket's descriptor is beside it."""
        return {"number": self._number, "unread": self._unread.decode("latin-1")}

    def fileno(self) -> int:
        if self._transport is None:
            raise ChannelLost("the channel is not open")
        number: int = self._transport.get_extra_info("socket").fileno()
        return number

    # --- from the other side --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it

    def data_received(self, data: bytes) -> None:
        unread = self._unread
        unread += data
        while len(unread) >= 4 and not self.closed:
            length = int.from_bytes(unread[:4], "big")
            if length > MAX_MESSAGE:
                _log.error("nonsense on the channel", length=length)
                self._end()
                return
            if len(unread) < 4 + length:
                return
            body = bytes(unread[4 : 4 + length])
            del unread[: 4 + length]
            try:
                number, kind, fields = json.loads(body)
            except (ValueError, TypeError) as error:
                _log.error("nonsense on the channel", error=str(error))
                self._end()
                return
            self._received(number, kind, fields)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _received(self, number: int, kind: str, fields: Fields) -> None:
        if number < 0:
            answer = self._asked.get(-number)
            if answer is not None and not answer.done():
                if kind == "error":
                    answer.set_exception(_remade(fields))
                else:
                    answer.set_result(fields)
            return
        handler = self._handlers.get(kind)
        if handler is None:
            self._answer_error(number, kind, TiergateError(f'a message "{kind}" is not known here'))
            return
        try:
            result = handler(fields)
        except Exception as error:
            self._answer_error(number, kind, error)
            return
        if isinstance(result, Awaitable):
            task = asyncio.get_running_loop().create_task(self._await(number, kind, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._answer(number, kind, result)

    async def _await(self, number: int, kind: str, result: Awaitable[Fields | None]) -> None:
        try:
            fields = await result
        except asyncio.CancelledError:
            self._answer_error(number, kind, ShuttingDown("the supervisor begins anew; try again"))
            raise
        except Exception as error:
            self._answer_error(number, kind, error)
        else:
            self._answer(number, kind, fields)

    def _answer(self, number: int, kind: str, fields: Fields | None) -> None:
        if not number:
            return
        try:
            self._send(-number, "", fields or {})
        except (TiergateError, TypeError, ValueError) as error:
            self._answer_error(number, kind, error)

    def _answer_error(self, number: int, kind: str, error: Exception) -> None:
        if not isinstance(error, TiergateError):
            _log.exception("a message could not be handled", error, kind=kind)
            error = TiergateError()
        elif not number:
            _log.log(error.level, "a message was refused", kind=kind, error=error.message)
        if number:
            self._send(-number, "error", _parts(error))

    # --- the end --------------------------------------------------------------------------------------

    def _end(self) -> None:
        """The other side is gone, or is given up."""
        lost, self._lost = self._lost, _nothing
        self._finish()
        if self._transport is not None:
            self._transport.abort()
        lost()

    def _finish(self) -> None:
        self.closed = True
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ChannelLost("the other process is gone"))
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()


def _nothing() -> None:
    pass


def _parts(error: TiergateError) -> Fields:
    names = [kind.__name__ for kind in type(error).__mro__ if issubclass(kind, TiergateError)]
    return {
        "names": names,
        "message": error.message,
        "sqlstate": error.sqlstate,
        "hint": error.hint,
        "detail": error.detail,
        "internal": error.internal,
    }


def _remade(fields: Fields) -> TiergateError:
    """The same error again, or the nearest one that both sides know."""
    kind = TiergateError
    for name in fields["names"]:
        found = getattr(errors, name, None)
        if isinstance(found, type) and issubclass(found, TiergateError) and found is not errors.ServerRefused:
            kind = found
            break
    error = kind(fields["message"], hint=fields["hint"], detail=fields["detail"], internal=fields["internal"])
    error.sqlstate = fields["sqlstate"]
    return error
