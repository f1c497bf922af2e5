"""A connection of another tenant is told of the next without a round trip, and nothing runs if that fails."""

from __future__ import annotations

import pytest

from proxy.wire import encode
from proxy.wire.startup import CancelRequest
from tests.client.stage import BEGIN, COMMIT, Client, Stage, done, inquired, settings_taken
from tests.rawclient import kinds, sqlstates
from tests.transports import Transport

ONE = encode.query(b"SELECT 1")
REFUSED = encode.error("canceling statement due to user request", "57014")
SET = (
    encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("SET") + encode.CLOSE_COMPLETE * 2
)
ANSWERED = encode.PARSE_COMPLETE + encode.BIND_COMPLETE
ANSWERED += encode.row_description([("?column?", 23, 0)]) + encode.data_row(["1"]) + done()
INSERT = encode.parse(b"", b"INSERT INTO t VALUES (1)") + encode.bind(b"", b"", []) + encode.execute()
INSERTED = encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("INSERT 0 1")
READY = encode.ready_for_query()


def says(tenant: str) -> bytes:
    text = f'SET "app"."tenant_id" TO \'{tenant}\''.encode()
    name = b"tiergate_state"
    run = encode.parse(name, text) + encode.bind(b"", name, []) + encode.execute()
    return run + encode.close(b"P", b"") + encode.close(b"S", name)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """One server connection for everybody."""
    stage = Stage(monkeypatch)
    stage.pools.servers.limit = 1
    return stage


@pytest.fixture
def server(stage: Stage) -> Transport:
    """It has spoken for acme."""
    stage.unlinked("acme")
    return stage.server()


@pytest.fixture
def client(stage: Stage, server: Transport) -> Client:
    return stage.client("beta")


def test_a_batch_of_plain_statements_follows_in_the_same_write_and_transaction(
    stage: Stage, server: Transport, client: Client
) -> None:
    client.says(INSERT + encode.SYNC)
    assert server.take() == says("beta") + INSERT + encode.SYNC
    server.say(SET + INSERTED + READY)
    assert client.kinds() == "12CZ"
    client.says(ONE)
    assert server.take() == ONE, "it speaks for beta now"
    server.say(done())
    stage.leave()


def test_a_select_by_itself_does_too_and_reads_the_same(
    stage: Stage, server: Transport, client: Client
) -> None:
    client.says(ONE)
    asked = server.take()
    assert asked.startswith(says("beta"))
    assert asked.endswith(encode.execute() + encode.SYNC)
    assert b"SELECT 1\0" in asked
    server.say(SET + ANSWERED)
    assert client.kinds() == "TDCZ"
    stage.leave()


def test_a_change_that_is_struck_runs_nothing(stage: Stage, server: Transport, client: Client) -> None:
    client.says(INSERT + encode.SYNC)
    server.take()
    server.say(REFUSED)
    assert sqlstates(client.reads()) == ["57014"]
    assert server.closed, "nobody knows whom it speaks for"
    stage.leave()


def test_after_an_error_it_speaks_for_nobody_knows_whom(
    stage: Stage, server: Transport, client: Client
) -> None:
    for tenant in (client, stage.client("acme"), client):
        name = tenant.session.tenant.name
        tenant.says(INSERT + encode.SYNC)
        assert server.take() == says(name) + INSERT + encode.SYNC, "whoever comes"
        server.say(SET + encode.error("no", "23505") + READY)
        assert tenant.kinds() == "EZ"
    stage.leave()


def test_what_comes_behind_waits_for_the_end(stage: Stage, server: Transport, client: Client) -> None:
    """With an error the change is undone, and the connection would speak for acme again."""
    client.says(INSERT + encode.SYNC)
    server.take()
    client.says(ONE)
    assert server.take() == b""
    server.say(SET + encode.error("no", "23505") + READY)
    assert server.take().startswith(says("beta"))
    client.says(encode.query(b"VACUUM"))
    assert server.take() == b""
    server.say(SET + ANSWERED)
    assert server.take() == encode.query(b"VACUUM"), "which finds its tenant there"
    server.say(done("VACUUM"))
    assert client.kinds() == "EZTDCZCZ"
    stage.leave()


def test_all_in_one_write_is_not_taken_for_one_batch(stage: Stage, server: Transport, client: Client) -> None:
    client.says(INSERT + encode.SYNC + INSERT + encode.SYNC)
    asked = server.take()
    assert INSERT not in asked
    server.say(settings_taken())
    assert server.take() == (INSERT + encode.SYNC) * 2
    stage.leave()


PLAIN = encode.parse(b"s", b"SELECT 1")


@pytest.mark.parametrize(
    "batch",
    [
        encode.query(b"SELECT 1; SELECT 2"),
        encode.query(b"ROLLBACK; SELECT 1"),
        encode.query(b"SELECT 1 INTO t"),
        encode.query(b"SELECT $1"),
        encode.query(b"SELECT '\\\\'"),
        encode.query(b"/* ; */ SELECT 1"),
        encode.query(b"INSERT INTO t VALUES (1)"),
        encode.query(b"SELECT set_config('work_mem', '1MB', false)"),
        encode.query(b"BEGIN; SELECT 1"),
        encode.query(b"CALL p()"),
        encode.parse(b"", b"ROLLBACK") + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC,
        encode.parse(b"", b"VACUUM") + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC,
        INSERT + encode.FLUSH + encode.SYNC,
        INSERT,
        encode.bind(b"", b"unknown", []) + encode.execute() + encode.SYNC,
        PLAIN + encode.bind(b"", b"end", []) + encode.execute() + INSERT + encode.SYNC,
        PLAIN + encode.SYNC + INSERT,
    ],
)
def test_anything_else_waits_for_the_change(
    stage: Stage, server: Transport, client: Client, batch: bytes
) -> None:
    client.says(encode.parse(b"end", b"ROLLBACK") + encode.SYNC)
    server.take()
    server.say(settings_taken())
    server.take()
    server.say(encode.PARSE_COMPLETE + READY)
    other = stage.client("acme")
    other.says(ONE)
    server.take()
    server.say(SET + ANSWERED)
    client.says(batch)
    asked = server.take()
    assert asked.startswith(b"P")
    assert b"pg_catalog.set_config" in asked
    assert asked.endswith(encode.SYNC)
    assert asked.count(encode.SYNC) == 1
    assert b"INSERT" not in asked
    assert b"\0SELECT 1" not in asked
    stage.leave()


@pytest.mark.parametrize(
    "begin", [b"BEGIN", b"begin isolation level serializable, read only ;", b"START TRANSACTION"]
)
def test_a_begin_follows_a_change_that_is_not_confirmed_yet(
    stage: Stage, server: Transport, client: Client, begin: bytes
) -> None:
    client.says(encode.query(begin))
    asked = server.take()
    assert asked.endswith(encode.SYNC + encode.query(begin))
    client.says(ONE)
    assert server.take() == b"", "it would run as another tenant if the change failed"
    server.say(settings_taken())
    assert server.take() == b""
    server.say(done("BEGIN", b"T"))
    assert server.take() == ONE
    stage.leave()


def test_a_begin_behind_a_change_that_fails(stage: Stage, server: Transport, client: Client) -> None:
    client.says(BEGIN)
    server.take()
    server.say(REFUSED + READY + done("BEGIN", b"T"))
    assert kinds(client.reads()) == "EZ"
    assert server.closed
    stage.leave()


def test_a_cancel_of_a_begin_does_not_strike_the_change(
    stage: Stage, server: Transport, client: Client
) -> None:
    client.says(BEGIN)
    server.take()
    stage.plane.cancel(CancelRequest(client.session.pid, client.session.key))
    assert not stage.network.cancels
    server.say(settings_taken())
    server.say(done("BEGIN", b"T"))
    stage.leave()


def test_a_block_of_set_local_is_begun_with_its_tenant_and_its_first_statement(
    stage: Stage, server: Transport
) -> None:
    client = stage.chooser("acme")
    client.says(BEGIN, encode.query(b"SAVEPOINT a"), encode.query(b"SET LOCAL app.tenant_id = 'beta'"))
    client.says(ONE)
    asked = server.take()
    begin, tenant, savepoint = (asked.find(part) for part in (b"\0BEGIN\0", says("beta"), b"\0SAVEPOINT a\0"))
    assert 0 < begin < tenant < savepoint
    assert asked.endswith(ONE)
    assert encode.SYNC not in asked
    client.kinds()
    server.say(encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("BEGIN"))
    server.say(SET)
    server.say(encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("SAVEPOINT"))
    server.say(done(status=b"T"))
    assert client.kinds() == "CZ"
    client.says(COMMIT)
    assert server.take() == COMMIT
    server.say(done("COMMIT"))
    twin = stage.client("beta")
    twin.says(ONE)
    assert server.take() == ONE, "a COMMIT makes the change last"
    stage.leave()


def test_a_block_that_is_rolled_back_takes_its_tenant_along(stage: Stage, server: Transport) -> None:
    client = stage.chooser("acme")
    client.says(BEGIN, encode.query(b"SET LOCAL app.tenant_id = 'beta'"), ONE)
    server.take()
    client.kinds()
    server.say(encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("BEGIN"), SET)
    server.say(done(status=b"T"))
    client.says(encode.query(b"ROLLBACK"))
    server.take()
    server.say(done("ROLLBACK"))
    for tenant in ("beta", "acme"):
        twin = stage.client(tenant)
        twin.says(INSERT + encode.SYNC)
        assert server.take().startswith(says(tenant)), "told anew, whoever comes"
        server.say(SET + encode.error("no", "42601") + READY)
    stage.leave()


def test_a_client_that_goes_in_its_block_leaves_no_tenant(stage: Stage, server: Transport) -> None:
    client = stage.chooser("acme")
    client.says(BEGIN, encode.query(b"SET LOCAL app.tenant_id = 'beta'"), ONE)
    server.take()
    server.say(encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("BEGIN"), SET)
    server.say(done(status=b"T"))
    client.transport.hang_up()
    assert server.take() == encode.query(b"ROLLBACK")
    server.say(done("ROLLBACK"))
    twin = stage.client("beta")
    twin.says(ONE)
    assert server.take().startswith(says("beta"))
    stage.leave()


def test_who_may_keep_the_connection_for_its_sequences_waits(
    stage: Stage, server: Transport, client: Client
) -> None:
    client.session.keeps_sequences = True
    client.says(INSERT + encode.SYNC)
    assert INSERT not in server.take(), "after an error it would keep a connection that speaks for acme"
    stage.leave()


def test_who_keeps_a_connection_that_was_taken_back_tells_it_anew(stage: Stage, server: Transport) -> None:
    client = stage.chooser("acme")
    client.says(
        BEGIN, encode.query(b"SET app.tenant_id = 'beta'"), encode.query(b"SELECT pg_advisory_lock(1)")
    )
    assert says("beta") in server.take()
    server.say(encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("BEGIN"), SET)
    server.say(done(status=b"T"))
    client.says(encode.query(b"ROLLBACK"))
    server.take()
    server.say(done("ROLLBACK"))
    server.take()
    server.say(inquired(left="t"))
    client.says(ONE)
    asked = server.take()
    assert asked
    assert ONE not in asked, "first it is told of acme"
    stage.leave()


def test_a_tenant_that_stays_with_a_rollback_does_not_enter_the_block(
    stage: Stage, server: Transport
) -> None:
    client = stage.chooser("acme")
    client.says(
        encode.query(b"SET app.tenant_id = 'beta'"), BEGIN, encode.query(b"SET app.tenant_id = 'acme'")
    )
    client.says(encode.query(b"SET LOCAL app.tenant_id = 'beta'"), ONE)
    asked = server.take()
    assert b"pg_catalog.set_config" in asked
    assert ONE not in asked
    stage.leave()
