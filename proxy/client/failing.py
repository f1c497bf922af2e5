"""What a client reads in a failed transaction block of which no server knows.

PostgreSQL looks at a request as far as it needs no transaction for that: what is no SQL, what does not exist and what
does not fit is said first, and an empty text is well. All else is refused, but for what ends the block or its failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from proxy.client.portals import Portal, shown, unknown, wrong_number
from proxy.client.preparing import wanted
from proxy.errors import BadSyntax, FailedTransaction, TiergateError, UnknownStatement
from proxy.protocol.statements import Description, SqlStatement, Statement
from proxy.protocol.tenancy import IN_FAILED_TRANSACTION
from proxy.sql.aborted import Reading, read
from proxy.sql.steps import Verb
from proxy.wire import decode, encode
from proxy.wire.decode import bind_names, parse_fields

if TYPE_CHECKING:
    from proxy.client.choosing import Choice
    from proxy.client.linking import Linking

_QUERY, _PARSE, _BIND, _DESCRIBE, _EXECUTE, _CLOSE, _CALL = b"QPBDECF"
_EXITS = frozenset({Verb.COMMIT, Verb.ROLLBACK, Verb.ROLLBACK_TO})
_OPEN = frozenset({0, 705})  # as good as none, and `unknown`


def hear(session: Linking, kind: int, body: bytes) -> bool:
    """Whether it has been answered; else it is heard as anywhere."""
    chooser: Choice = session.chooser
    try:
        said = _answer(session, chooser.portals, kind, body)
    except TiergateError as error:
        chooser.fail(error, b"")
        if kind not in (_QUERY, _CALL):
            chooser.batch = session.skipping = True
            return True
        said = b""
    if said is None:
        return False
    if kind in (_QUERY, _CALL):
        said += encode.ready_for_query(chooser.tenancy.status)
    else:
        chooser.batch = True
    session.write(said)
    return True


def _answer(session: Linking, portals: Mapping[bytes, Portal], kind: int, body: bytes) -> bytes | None:
    """None: as anywhere else. Raises TiergateError."""
    if kind == _QUERY:
        return _query(session, decode.query(body))
    if kind == _PARSE:
        return _parse(session, *parse_fields(body))
    if kind == _BIND:
        return _bind(session, body)
    if kind == _DESCRIBE:
        target, name = decode.target(body)
        return _describe_portal(portals, name) if target == b"P" else _describe(session, name)
    if kind == _EXECUTE:
        return _execute(portals, decode.execute(body)[0])
    if kind == _CLOSE:
        target, name = decode.target(body)
        gone = name not in portals if target == b"P" else bool(name) and not session.maps_statements
        return encode.CLOSE_COMPLETE if gone else None
    if kind == _CALL:
        raise FailedTransaction(IN_FAILED_TRANSACTION)
    return None


def _exits(session: Linking, text: bytes) -> bool:
    opening = session.chooser.opening(text)
    return opening is not None and opening.steps[0].verb in _EXITS


def _query(session: Linking, text: bytes) -> bytes | None:
    session.unnamed = session.unnamed_by = None
    reading = read(text)
    if reading is not None and not reading.statements:
        return encode.EMPTY_QUERY
    if _exits(session, text):
        return None
    raise FailedTransaction(IN_FAILED_TRANSACTION)


def _parse(session: Linking, name: bytes, text: bytes, oids: bytes) -> bytes | None:
    if not name:
        session.unnamed = session.unnamed_by = None
    reading = read(text)
    if reading is not None and reading.statements > 1:
        raise BadSyntax("cannot insert multiple commands into a prepared statement")
    if (reading is not None and not reading.statements) or _exits(session, text):
        return None
    raise FailedTransaction(IN_FAILED_TRANSACTION)


def _known(session: Linking, name: bytes) -> Statement:
    statement = wanted(session, name) if name else session.unnamed
    if statement is not None:
        return statement
    if not name:
        raise UnknownStatement("unnamed prepared statement does not exist")
    if not session.maps_statements:
        raise FailedTransaction(IN_FAILED_TRANSACTION)  # only a server knows what it has
    raise UnknownStatement(f'prepared statement "{shown(name)}" does not exist')


def _bind(session: Linking, body: bytes) -> bytes | None:
    _, name, at = bind_names(body)
    statement = _known(session, name)
    given = len(decode.bind_values(body, at)[0])
    if _exits(session, statement.text):
        return None
    needs = _number_of_parameters(session, name, statement)
    if needs is not None and given != needs:
        raise wrong_number(name, given, needs)
    raise FailedTransaction(IN_FAILED_TRANSACTION)


def _number_of_parameters(session: Linking, name: bytes, statement: Statement) -> int | None:
    """None: nobody knows."""
    told = _told(session, name, statement)
    if told is not None:
        return _count(told.parameters)
    reading = _reading(statement)
    return None if reading is None else max(reading.parameters, _count(statement.oids))


def _describe(session: Linking, name: bytes) -> bytes | None:
    statement = _known(session, name)
    if _exits(session, statement.text):
        return None
    types = _types(session, name, statement)
    if types is None:
        raise FailedTransaction(IN_FAILED_TRANSACTION)
    return encode.frame(b"t", types) + encode.NO_DATA


def _types(session: Linking, name: bytes, statement: Statement) -> bytes | None:
    """Of its parameters; None if it answers with rows, or where nobody knows: which types the parameters have that the
    client has neither told nor been told, only a server finds out."""
    told = _told(session, name, statement)
    if told is not None:
        return None if told.columns else told.parameters
    reading, oids = _reading(statement), statement.oids
    if reading is None or reading.rows or _count(oids) < reading.parameters:
        return None
    open_ones = any(int.from_bytes(oids[at : at + 4], "big") in _OPEN for at in range(2, len(oids), 4))
    return None if open_ones else oids


def _told(session: Linking, name: bytes, statement: Statement) -> Description | None:
    """What has been said of it."""
    told = session.described.get(name) if name and session.described else None
    return statement.told if told is None else told


def _count(oids: bytes) -> int:
    return (len(oids) - 2) // 4


def _reading(statement: Statement) -> Reading | None:
    return None if isinstance(statement, SqlStatement) else read(statement.text)


def _portal(portals: Mapping[bytes, Portal], name: bytes) -> Portal:
    if name not in portals:
        raise unknown(name)
    return portals[name]


def _describe_portal(portals: Mapping[bytes, Portal], name: bytes) -> bytes | None:
    if _portal(portals, name).step.column:
        raise FailedTransaction(IN_FAILED_TRANSACTION)
    return None


def _execute(portals: Mapping[bytes, Portal], name: bytes) -> bytes | None:
    portal = _portal(portals, name)
    if portal.failed or portal.step.verb not in _EXITS:
        raise FailedTransaction(IN_FAILED_TRANSACTION)
    return None
