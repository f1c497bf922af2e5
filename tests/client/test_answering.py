"""What opens a transaction is answered without a server."""

from __future__ import annotations

import pytest

from proxy.protocol.statements import SqlStatement
from proxy.sql.verdict import PLAIN
from proxy.wire import encode
from tests.client.stage import Client, Stage
from tests.rawclient import Frame, error_fields, kinds

PARSE_SET = encode.parse(b"", b"SELECT set_config('app.tenant_id', $1, $2)")
SYNC = encode.SYNC


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def says(client: Client, *data: bytes) -> list[Frame]:
    client.says(*data)
    frames = client.reads()
    assert not client.stage.network.servers
    return frames


def test_a_set_config_with_parameters(stage: Stage) -> None:
    client = stage.chooser("acme")
    frames = says(client, PARSE_SET + encode.describe(b"S", b"") + SYNC)
    assert kinds(frames) == "1tTZ"
    assert frames[1].body == b"\0\2" + (25).to_bytes(4, "big") + (16).to_bytes(4, "big")
    frames = says(
        client, encode.bind(b"", b"", [b"beta", b"f"]) + encode.describe(b"P", b"") + encode.execute() + SYNC
    )
    assert kinds(frames) == "2TDCZ"
    assert frames[2].body.endswith(b"beta")
    assert client.session.chooser is not None
    assert client.session.chooser.tenancy.own.name == "beta"
    stage.leave()


def test_types_that_the_client_has_said_are_kept(stage: Stage) -> None:
    client = stage.chooser("acme")
    oids = b"\0\1" + (1043).to_bytes(4, "big")
    frames = says(
        client,
        encode.parse(b"n", b"SELECT set_config('app.tenant_id', $1, false)", oids)
        + encode.describe(b"S", b"n")
        + SYNC,
    )
    assert frames[1].body == oids
    stage.leave()


@pytest.mark.parametrize(
    ("flag", "format_", "local"), [(b"\1", 1, True), (b"\0", 1, False), (b"yes", 0, True), (b"0", 0, False)]
)
def test_binary_values(stage: Stage, flag: bytes, format_: int, local: bool) -> None:
    client = stage.chooser("acme")
    body = b"\0\0" + b"\0\2\0\1" + format_.to_bytes(2, "big") + b"\0\2"
    body += (4).to_bytes(4, "big") + b"beta" + len(flag).to_bytes(4, "big") + flag + b"\0\1\0\1"
    frames = says(
        client,
        encode.query(b"BEGIN")
        + PARSE_SET
        + encode.frame(b"B", body)
        + encode.describe(b"P", b"")
        + encode.execute()
        + SYNC,
    )
    assert kinds(frames) == "CZ12TDCZ"
    assert frames[4].body.endswith(b"\0\1")  # the format that was asked for
    assert client.session.chooser is not None
    assert (client.session.chooser.tenancy.lasting.name == "acme") is local
    stage.leave()


@pytest.mark.parametrize("values", [[], [b"beta"], [b"beta", b"t", b"x"]])
def test_a_wrong_number_of_values(stage: Stage, values: list[bytes]) -> None:
    client = stage.chooser("acme")
    frames = says(client, PARSE_SET + encode.bind(b"", b"", values) + encode.execute() + SYNC)
    assert kinds(frames) == "1EZ"
    assert error_fields(frames[1].body)["C"] == "08P01"
    stage.leave()


def test_an_error_skips_to_the_sync_and_takes_back_what_was_named(stage: Stage) -> None:
    client = stage.chooser("acme")
    beta = encode.parse(b"", b"SET app.tenant_id = 'beta'") + encode.bind(b"", b"", []) + encode.execute()
    nowhere = (
        encode.parse(b"", b"SET app.tenant_id = 'nowhere'") + encode.bind(b"", b"", []) + encode.execute()
    )
    assert kinds(says(client, beta + nowhere + beta + encode.FLUSH + SYNC)) == "12C12EZ"
    assert client.session.chooser is not None
    assert client.session.chooser.tenancy.own.name == "acme"
    assert kinds(says(client, beta + SYNC)) == "12CZ"
    assert client.session.chooser.tenancy.own.name == "beta"
    stage.leave()


def test_a_portal_can_be_executed_once(stage: Stage) -> None:
    client = stage.chooser("acme")
    begin = encode.parse(b"b", b"BEGIN") + encode.bind(b"p", b"b", [])
    frames = says(client, begin + encode.execute(b"p") + encode.execute(b"p") + SYNC)
    assert kinds(frames) == "12CEZ"
    assert frames[-1].body == b"E"
    assert kinds(says(client, encode.query(b"ROLLBACK"))) == "CZ"
    stage.leave()


def test_statements_are_the_clients(stage: Stage) -> None:
    client = stage.chooser("acme")
    begin = encode.parse(b"b", b"BEGIN")
    assert kinds(says(client, begin + SYNC, begin + SYNC)) == "1ZEZ"
    assert kinds(says(client, encode.close(b"S", b"b") + begin + SYNC)) == "31Z"
    assert kinds(says(client, encode.close(b"S", b"") + encode.close(b"S", b"none") + SYNC)) == "33Z"
    assert b"b" in client.session.statements
    stage.leave()


def test_a_query_takes_the_unnamed_statement(stage: Stage) -> None:
    client = stage.chooser("acme")
    assert kinds(says(client, PARSE_SET + SYNC, encode.query(b"SHOW app.tenant_id"))) == "1ZTDCZ"
    assert client.session.unnamed is None
    stage.leave()


def test_positions_of_errors_stay_those_of_the_whole_text(stage: Stage) -> None:
    client = stage.chooser("acme")
    text = "SET app.tenant_id = 'beta' /* ä\n */; SELECT nosuch".encode()
    client.says(encode.query(text))
    stage.pools.step()
    sent = stage.server().take()
    assert b"beta" in sent
    rest = client.session.chooser.again[5:-1] if client.session.chooser is not None else b""
    assert len(rest.decode()) == len(text.decode())
    assert rest.strip() == b"; SELECT nosuch" or rest.strip() == b"SELECT nosuch"
    assert rest.decode().index("SELECT") == text.decode().index("SELECT")
    assert rest.count(b"\n") == 1
    stage.leave()


def test_what_was_prepared_in_sql_has_its_name(stage: Stage) -> None:
    client = stage.chooser("acme")
    client.session.by_sql = {b"p": SqlStatement(b"PREPARE p AS SELECT 1", PLAIN)}
    again = encode.parse(b"p", b"SET app.tenant_id = 'beta'") + SYNC
    frames = says(client, again)
    assert kinds(frames) == "EZ"
    assert error_fields(frames[0].body)["C"] == "42P05"
    assert kinds(says(client, encode.close(b"S", b"p") + again)) == "31Z"
    assert not client.session.by_sql
    stage.leave()
