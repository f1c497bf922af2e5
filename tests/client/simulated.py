"""A small PostgreSQL that lives in memory: it reads the bytes of one connection and says what the real one would.

It knows transactions with savepoints, prepared statements, portals that are read in part, parameters (reported or not,
also LOCAL ones), LISTEN, COPY both ways and calls by message, and a dozen statements. Rows tell which session state they
were made in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from proxy.wire import encode

_SETTING = re.compile(r"SET (LOCAL )?([\w.]+) = '(\w*)'")
_SAVEPOINT = re.compile(r"(SAVEPOINT|ROLLBACK TO|RELEASE) (\w+)")
_SPEAKING = re.compile(r"""SET "app"\."tenant_id" TO '(\w*)'""")
_PREPARE = re.compile(r"PREPARE (\w+) AS (.*)")
# What is written behind a RESET, with its values as digits.
_AMENDED = re.compile(r'SELECT 1 AS "(tiergate_again_\w+)"')
_DIGITS = re.compile(r"decode\('([0-9a-f]*)'")
LOOK = "SELECT * FROM pg_prepared_statements"
_REPORTED = {"timezone": "TimeZone", "application_name": "application_name"}
# The last two are no parameters: whether work_mem has been set in the session, and what is listened to.
_DEFAULTS = {
    "timezone": "UTC", "application_name": "", "app.tenant_id": "", "work_mem": "4MB", "source": "", "channel": "",
}  # fmt: skip
_SEEN = ("app.tenant_id", "timezone", "application_name", "work_mem", "channel")
_TAGS = ("BEGIN", "COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN")
_ENDS = (*_TAGS[1:], "")


class _Failure(Exception):
    def __init__(self, sqlstate: str, message: str = "no") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message


class _Portal:
    def __init__(self, text: str, values: list[str | None]) -> None:
        self.text, self.values = text, values
        self.rows: list[bytes] | None = None  # still to come; None: it has not run
        self.tag = ""


class _Savepoint(NamedTuple):
    name: str
    values: dict[str, str]
    outside: dict[str, str]


class SimulatedServer:
    """`startup` is what the client asked for at its login: RESET goes back to that."""

    def __init__(self, startup: Mapping[str, str] | None = None) -> None:
        self.defaults = {**_DEFAULTS, **(startup or {})}
        self.values = dict(self.defaults)
        self.told = {name: self.values[name] for name in _REPORTED}
        self.statements: dict[bytes, str] = {}
        self.sources: dict[bytes, str] = {}  # of those that were prepared in SQL
        self.portals: dict[bytes, _Portal] = {}
        self.status = "I"
        self.over = False
        self._before: dict[str, str] | None = None  # values to go back to
        self._outside: dict[str, str] = {}  # those of LOCAL ones, once their transaction has committed
        self._savepoints: list[_Savepoint] = []
        self._skipping = False
        self._copying = False
        self._extended = False
        self._unread = b""

    # --- bytes --------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """The answers to all that is whole by now."""
        self._unread += data
        out = []
        while len(self._unread) >= 5 and not self.over:
            end = 1 + int.from_bytes(self._unread[1:5], "big")
            if len(self._unread) < end:
                break
            kind, body = self._unread[:1], self._unread[5:end]
            self._unread = self._unread[end:]
            out.append(self._message(kind, body))
        return b"".join(out)

    def _message(self, kind: bytes, body: bytes) -> bytes:
        if kind == b"X":
            self.over = True
            return b""
        if self._copying:
            return self._copy(kind)
        if kind == b"S":
            self._skipping = False
            return self._end_of_batch()
        if self._skipping or kind in b"dcfH":
            return b""
        if kind == b"Q":
            return self._query(body[:-1].decode())
        if kind == b"F":
            return self._call()
        self._open()
        try:
            return self._extended_message(kind, body)
        except _Failure as failure:
            self._skipping = True
            return self._failed(failure)

    # --- transactions -------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._before is None:
            self._before = dict(self.values)

    def _failed(self, failure: _Failure) -> bytes:
        self.portals.clear()
        if self.status == "T":
            self.status = "E"
        elif self.status == "I" and self._before is not None:
            self.values, self._before = self._before, None
            self._outside.clear()
        return encode.error(failure.message, failure.sqlstate)

    def _end_of_batch(self) -> bytes:
        if self.status == "I":
            self._commit()
        said = []
        for name, shown in _REPORTED.items():
            if self.values[name] != self.told[name]:
                self.told[name] = self.values[name]
                said.append(encode.parameter_status(shown.encode(), self.values[name].encode()))
        return b"".join(said) + encode.ready_for_query(self.status.encode())

    def _commit(self) -> None:
        self.values |= self._outside
        self._outside.clear()
        self._savepoints.clear()
        self._before = None
        self.portals.clear()

    def _call(self) -> bytes:
        self._open()
        if self.status == "E":
            return self._failed(_Failure("25P02")) + self._end_of_batch()
        return encode.frame(b"V", b"\0\0\0\1x") + self._end_of_batch()

    # --- simple queries -----------------------------------------------------------------------------

    def _query(self, text: str) -> bytes:
        self.statements.pop(b"", None)
        self.portals.pop(b"", None)
        self._open()
        said = []
        for statement in map(str.strip, text.split("; ")):
            try:
                rows, tag = self._run(statement, [])
            except _Failure as failure:
                said.append(self._failed(failure))
                break
            if tag == "COPY":  # the last one, if there are several
                self._copying, self._extended = True, False
                return b"".join(said) + encode.frame(b"G", b"\0\0\0")
            if tag == "COPY 3":
                said.append(_copied())
                continue
            if not text:
                said.append(encode.EMPTY_QUERY)
                continue
            amended = _AMENDED.match(statement)
            columns = [(amended[1] if amended else "answer", 25, 0)]
            head = encode.row_description(columns) if rows or amended else b""
            said.append(head + rows + encode.command_complete(tag))
        return b"".join(said) + self._end_of_batch()

    def _copy(self, kind: bytes) -> bytes:
        if kind in b"dHS":
            return b""
        self._copying = False
        if kind == b"c":
            said = encode.command_complete("COPY 1")
        else:
            self._skipping = self._extended
            said = self._failed(_Failure("57014", "COPY from stdin failed"))
        return said if self._extended else said + self._end_of_batch()

    # --- extended queries ---------------------------------------------------------------------------

    def _extended_message(self, kind: bytes, body: bytes) -> bytes:
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._parse(name, text.decode())
            return encode.PARSE_COMPLETE
        if kind == b"B":
            self._bind(body)
            return encode.BIND_COMPLETE
        if kind == b"D":
            of_portal = body[:1] == b"P"
            if of_portal and body[1:-1] not in self.portals:
                raise _Failure("34000")
            text = self.portals[body[1:-1]].text if of_portal else self._statement(body[1:-1])
            if of_portal or text.startswith(("SELECT", "EXECUTE ")):
                self._allowed(text)
            if text.startswith("EXECUTE "):
                text = self.statements.get(text[8:].encode(), "")
            rows = (
                encode.row_description([("answer", 25, 0)]) if text.startswith("SELECT") else encode.NO_DATA
            )
            return rows if of_portal else encode.frame(b"t", b"\0\0") + rows
        if kind == b"E":
            name, _, most = body.partition(b"\0")
            if name not in self.portals:
                raise _Failure("34000")
            return self._execute(self.portals[name], int.from_bytes(most, "big"))
        if kind == b"C":
            closing: dict[bytes, Any] = self.statements if body[:1] == b"S" else self.portals
            closing.pop(body[1:-1], None)
            return encode.CLOSE_COMPLETE
        raise AssertionError(kind)

    def _execute(self, portal: _Portal, most: int) -> bytes:
        self._allowed(portal.text)
        if portal.rows is None:
            rows, portal.tag = self._run(portal.text, portal.values)
            portal.rows = _frames(rows)
            if portal.tag == "COPY":
                self._copying = self._extended = True
                return encode.frame(b"G", b"\0\0\0")
            if portal.tag == "COPY 3":
                return _copied()
            if not portal.text:
                return encode.frame(b"I", b"")
        elif portal.text != "" and not portal.tag.startswith("SELECT"):
            raise _Failure("55000", "portal cannot be run")
        now, portal.rows = portal.rows[: most or None], portal.rows[most or len(portal.rows) :]
        suspended = most and len(now) == most and portal.tag.startswith("SELECT")
        return b"".join(now) + (encode.frame(b"s", b"") if suspended else encode.command_complete(portal.tag))

    def _parse(self, name: bytes, text: str) -> None:
        if not name:
            self.statements.pop(b"", None)
        if text == "SELEC":
            raise _Failure("42601")
        self._allowed(text)
        if name and name in self.statements:
            raise _Failure("42P05", f'prepared statement "{name.decode()}" already exists')
        self.statements[name] = text
        self.sources.pop(name, None)

    def _statement(self, name: bytes) -> str:
        if name not in self.statements:
            raise _Failure("26000", f'prepared statement "{name.decode()}" does not exist')
        return self.statements[name]

    def _bind(self, body: bytes) -> None:
        portal, name, rest = body.split(b"\0", 2)
        text = self._statement(name)
        self._allowed(text)
        if not text and self.status == "E":
            raise _Failure("25P02")
        if text == "SELECT fail":  # when it is planned
            raise _Failure("22012")
        values: list[str | None] = []
        at = 4
        for _ in range(int.from_bytes(rest[2:4], "big")):
            length = int.from_bytes(rest[at : at + 4], "big", signed=True)
            at += 4
            values.append(None if length < 0 else rest[at : at + length].decode())
            at += max(length, 0)
        if portal and portal in self.portals:
            raise _Failure("42P03")
        self.portals[portal] = _Portal(text, values)

    # --- statements ---------------------------------------------------------------------------------

    def _allowed(self, text: str) -> None:
        if self.status == "E" and text not in _ENDS and not text.startswith("ROLLBACK TO "):
            raise _Failure("25P02")

    def _run(self, text: str, values: list[str | None]) -> tuple[bytes, str]:
        """Rows and tag."""
        if text == "SELEC":
            raise _Failure("42601")
        self._allowed(text)
        if text == "SELECT fail":
            raise _Failure("22012")
        if text in _TAGS:
            return b"", self._transaction(text)
        if text.startswith("SELECT pg_catalog.set_config"):
            for name, value in zip(values[::2], values[1::2], strict=True):
                assert name is not None
                self._set(name, value)
            return encode.data_row(["x"]), "SELECT 1"
        if text.startswith("SELECT pg_catalog.current_setting"):
            return encode.data_row([self.values[str(name)] for name in values]), "SELECT 1"
        if text.startswith("SELECT pg_catalog.lower(s.name)"):
            assert values == ["work_mem"]
            return encode.data_row(["work_mem"]) if self.values["source"] else b"", "SELECT 1"
        if text.startswith("SELECT EXISTS (SELECT FROM pg_catalog.pg_listening_channels"):
            return encode.data_row(["t" if self.values["channel"] else "f"]), "SELECT 1"
        if _AMENDED.match(text):
            names = [bytes.fromhex(digits).decode() for digits in _DIGITS.findall(text)]
            for name, value in zip(names[::2], names[1::2], strict=True):
                self._set(name, value)
            return b"", "SELECT 0"
        if text == LOOK:
            seen = [
                f"{name.decode()}: {self.sources.get(name, said)}"
                for name, said in self.statements.items()
                if name
            ]
            return encode.data_row(sorted(seen)), "SELECT 1"
        if found := _SAVEPOINT.fullmatch(text):
            return b"", self._savepoint(found[1], found[2])
        if text == "SELECT several":
            return b"".join(encode.data_row([f"{number}"]) for number in range(5)), "SELECT 5"
        if text.startswith("SELECT "):
            return encode.data_row(["|".join([text, *(self.values[name] for name in _SEEN)])]), "SELECT 1"
        if found := _SETTING.fullmatch(text):
            self._set(found[2].lower(), found[3], local=bool(found[1]))
            return b"", "SET"
        if found := _SPEAKING.fullmatch(text):
            self._set("app.tenant_id", found[1])
            return b"", "SET"
        if text == "RESET ALL":
            self.values = {**self.defaults, "channel": self.values["channel"]}
            self._outside.clear()
            return b"", "RESET"
        if text.startswith("RESET "):
            self._set(text[6:].lower(), None)
            return b"", "RESET"
        if text == "DISCARD ALL":
            if self.status != "I":
                raise _Failure("25001")
            self.values = dict(self.defaults)
            self._outside.clear()
            self._before = None  # it commits at once
            self.portals.clear()
            self._deallocate_all()
            return b"", "DISCARD ALL"
        if found := _PREPARE.fullmatch(text):
            self._parse(found[1].encode(), found[2])
            self.sources[found[1].encode()] = text
            return b"", "PREPARE"
        if text.startswith("EXECUTE "):
            prepared = self._statement(text[8:].encode())
            if not prepared.startswith("SELECT "):  # what else a client can prepare by message
                raise _Failure("26000")
            return self._run(prepared, [])
        if text == "DEALLOCATE ALL":
            self._deallocate_all()
            return b"", "DEALLOCATE ALL"
        if text.startswith("DEALLOCATE "):
            name = text[11:].strip('"').encode()
            if self.statements.pop(name, None) is None:
                raise _Failure("26000")
            return b"", "DEALLOCATE"
        if text.startswith("COPY "):
            return b"", "COPY 3" if text.endswith("TO STDOUT") else "COPY"
        if text in ("LISTEN x", "UNLISTEN x"):
            self.values["channel"] = "x" if text == "LISTEN x" else ""
            return b"", text[:-2]
        if not text:
            return b"", ""
        raise _Failure("22012" if text == "FAIL" else "42601")

    def _set(self, name: str, value: str | None, *, local: bool = False) -> None:
        changes = {name: self.defaults[name] if value is None else value}
        if name == "work_mem":
            changes["source"] = "" if value is None else "session"
        for changed in changes:
            if local:
                self._outside.setdefault(changed, self.values[changed])
            else:
                self._outside.pop(changed, None)
        self.values |= changes

    def _deallocate_all(self) -> None:
        """The unnamed one stays."""
        self.statements = {name: text for name, text in self.statements.items() if not name}

    def _transaction(self, verb: str) -> str:
        if verb == "BEGIN":
            self.status = "T"
            return verb
        verb, _, chained = verb.partition(" ")
        if chained and self.status == "I":
            raise _Failure("25P01")
        if verb == "ROLLBACK" or self.status == "E":
            if self.status != "I" and self._before is not None:
                self.values = self._before
                self._outside.clear()
            verb = "ROLLBACK"
        self._commit()
        self.status = "T" if chained else "I"
        if chained:
            self._open()
        return verb

    def _savepoint(self, verb: str, name: str) -> str:
        if self.status == "I":
            raise _Failure("25P01")
        if verb == "SAVEPOINT":
            self._savepoints.append(_Savepoint(name, dict(self.values), dict(self._outside)))
            return verb
        if all(each.name != name for each in self._savepoints):
            raise _Failure("3B001")
        while self._savepoints[-1].name != name:
            self._savepoints.pop()
        if verb == "RELEASE":
            self._savepoints.pop()
            return verb
        self.status = "T"
        self.values, self._outside = dict(self._savepoints[-1].values), dict(self._savepoints[-1].outside)
        return "ROLLBACK"


def _frames(data: bytes) -> list[bytes]:
    found = []
    while data:
        end = 1 + int.from_bytes(data[1:5], "big")
        found.append(data[:end])
        data = data[end:]
    return found


def _copied() -> bytes:
    rows = encode.frame(b"d", b"row\n") * 3
    return encode.frame(b"H", b"\0\0\0") + rows + encode.frame(b"c", b"") + encode.command_complete("COPY 3")
