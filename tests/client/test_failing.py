"""What is read in a failed block of which no server knows; the differential tests have the whole of it."""

from __future__ import annotations

import pytest

from proxy.protocol.statements import SqlStatement
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
