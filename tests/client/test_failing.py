"""What is read in a failed block of which no server knows; the differential tests have the whole of it."""

from __future__ import annotations

import pytest

from proxy.protocol.statements import SqlStatement, describe
from proxy.sql.verdict import PLAIN
from proxy.wire import encode
from tests.client.stage import Client, Stage
from tests.rawclient import SYNC, function_call, kinds, sqlstates


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def failed(stage: Stage) -> Client:
    client = stage.chooser("acme")
    client.says(encode.query(b"BEGIN"), encode.query(b"RELEASE nowhere"))
    assert kinds(client.reads()) == "CZEZ"
    return client


@pytest.mark.parametrize(
    ("frames", "answered", "sqlstate"),
    [
        (encode.query(b";"), "IZ", ""),
        (encode.query(b"SELECT 1"), "EZ", "25P02"),
        (encode.query(b"oops"), "EZ", "42601"),
        (function_call(1598), "EZ", "25P02"),
        (encode.parse(b"", b"") + SYNC, "1Z", ""),
        (encode.parse(b"", b"SELECT 1;SELECT 2") + encode.FLUSH + SYNC, "EZ", "42601"),
        (encode.bind(b"", b"", []) + SYNC, "EZ", "26000"),
        (encode.bind(b"", b"nowhere", []) + SYNC, "EZ", "26000"),
        (encode.describe(b"S", b"nowhere") + SYNC, "EZ", "26000"),
        (encode.describe(b"P", b"nowhere") + SYNC, "EZ", "34000"),
        (encode.execute(b"nowhere") + SYNC, "EZ", "34000"),
        (encode.close(b"P", b"nowhere") + SYNC, "3Z", ""),
        (encode.frame(b"E", b"p") + SYNC, "EZ", "08P01"),
    ],
)
def test_what_is_answered(stage: Stage, frames: bytes, answered: str, sqlstate: str) -> None:
    client = failed(stage)
    client.says(frames)
    found = client.reads()
    assert kinds(found) == answered
    assert sqlstates(found) == ([sqlstate] if sqlstate else [])
    assert found[-1].body == b"E"
    client.says(encode.query(b"ROLLBACK"))
    assert kinds(client.reads()) == "CZ"
    stage.leave()


def test_of_what_was_prepared_in_sql_only_a_server_knows(stage: Stage) -> None:
    client = failed(stage)
    client.session.by_sql = {b"p": SqlStatement(b"PREPARE p(int) AS SELECT $1", PLAIN)}
    client.says(encode.bind(b"", b"p", []), SYNC, encode.describe(b"S", b"p"), SYNC)
    assert sqlstates(client.reads()) == ["25P02", "25P02"]
    stage.leave()


def test_what_was_bound_before_it_failed_is_not_run(stage: Stage) -> None:
    client = stage.chooser("acme")
    client.says(encode.query(b"BEGIN"), encode.query(b"SAVEPOINT a"))
    client.says(
        encode.parse(b"", b"COMMIT"), encode.bind(b"p", b"", []), SYNC, encode.query(b"RELEASE nowhere")
    )
    client.reads()
    client.says(encode.execute(b"p"), SYNC)
    assert sqlstates(client.reads()) == ["25P02"]
    client.says(
        encode.query(b"ROLLBACK TO a"), encode.query(b"ROLLBACK TO nowhere"), encode.execute(b"p"), SYNC
    )
    assert sqlstates(client.reads()) == ["3B001", "34000"]
    stage.leave()


@pytest.mark.parametrize("text", [b"COMMIT AND CHAIN", b"ROLLBACK AND CHAIN /* \\' */"])
def test_a_chained_block_begins_as_the_failed_savepoint_s_did(stage: Stage, text: bytes) -> None:
    client = stage.chooser("acme")
    for begin, begun in (("BEGIN READ ONLY", b"BEGIN"), ("BEGIN READ ONLY; SAVEPOINT a", b"BEGIN READ ONLY")):
        client.says(encode.query(begin.encode()), encode.query(b"RELEASE nowhere"), encode.query(text))
        assert client.reads()[-1].body == b"T"
        assert client.session.chooser.tenancy.begins == [begun]
        client.says(encode.query(b"ROLLBACK"))
        client.reads()
    stage.leave()


def test_what_is_prepared_is_rolled_back_and_what_follows_is_heard(stage: Stage) -> None:
    client = failed(stage)
    client.says(encode.query(b"PREPARE TRANSACTION 'x'; SET app.tenant_id = 'beta'; BEGIN"))
    said = client.reads()
    assert [frame.body for frame in said] == [b"ROLLBACK\0", b"SET\0", b"BEGIN\0", b"T"]
    assert client.session.chooser.tenancy.value.name == "beta"
    client.says(encode.query(b"ROLLBACK"))
    stage.leave()


def test_a_statement_is_described_as_far_as_its_types_are_known(stage: Stage) -> None:
    client = failed(stage)
    session = client.session
    for name, oids in ((b"open", b"\0\0"), (b"typed", b"\0\1\0\0\0\x14"), (b"half", b"\0\1\0\0\0\0")):
        session.name_statement(
            name, session.plane.pools.catalog.statement(b"DELETE FROM t WHERE a = $1", oids, PLAIN)
        )
    for name in (b"open", b"typed", b"half"):
        client.says(encode.describe(b"S", name), SYNC)
    session.described = {b"open": describe(b"\0\1\0\0\0\x17", b"")}
    client.says(encode.describe(b"S", b"open"), SYNC)
    said = client.reads()
    assert kinds(said) == "EZtnZEZtnZ"
    assert [frame.body[-1] for frame in said if frame.kind == "t"] == [20, 23]
    stage.leave()
