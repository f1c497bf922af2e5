"""A connection of another tenant is told of the next without a round trip, and nothing runs if that fails."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.client import entering
from proxy.model import PinReason
from proxy.wire import encode
from proxy.wire.startup import CancelRequest
from tests.client.stage import BEGIN, COMMIT, Client, Stage, assured, done, inquired, settings_taken
from tests.examples import examples
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
    assert asked.endswith(INSERT + encode.SYNC)
    assert asked.count(INSERT) == 1, "the other may follow once the change is confirmed"
    server.say(assured() + INSERTED + READY)
    assert server.take() == INSERT + encode.SYNC
    stage.leave()


# --- what does not run unless the change has succeeded ------------------------------------------------


def marked(asked: bytes) -> bytes:
    """What comes behind the change and what looks for its mark."""
    change, found, rest = asked.partition(encode.SYNC)
    assert found
    assert b"pg_catalog.set_config" in change
    name = re.findall(rb"P.{4}(tiergate_sure_\w+)\0\0\0\0$", change, re.DOTALL)[0]
    look = encode.describe(b"S", name) + encode.close(b"S", name)
    assert rest.startswith(look)
    return rest.removeprefix(look)


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
        encode.query(b"VACUUM"),
        encode.query(b"BEGIN; SELECT 1"),
        encode.query(b"CALL p()"),
        encode.parse(b"", b"BEGIN") + encode.bind(b"", b"", []) + encode.execute() + INSERT + encode.SYNC,
        encode.parse(b"", b"ROLLBACK") + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC,
        encode.parse(b"", b"VACUUM") + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC,
        INSERT + encode.FLUSH + encode.SYNC,
        INSERT,
        encode.bind(b"", b"", []) + encode.execute() + INSERT + encode.SYNC,
        PLAIN + encode.bind(b"", b"", []) + encode.execute(),
    ],
)
def test_it_follows_at_once_behind_what_fails_without_the_change(
    stage: Stage, server: Transport, client: Client, batch: bytes
) -> None:
    client.says(encode.parse(b"", b"ROLLBACK") + encode.SYNC)
    server.take()
    server.say(assured() + encode.PARSE_COMPLETE + READY)
    assert client.kinds() == "1Z"
    other = stage.client("acme")
    other.says(ONE)
    server.take()
    server.say(SET + ANSWERED)
    client.says(batch)
    sent = marked(server.take())
    assert sent.endswith(batch[-10:])
    client.says(encode.SYNC, ONE)
    assert ONE not in server.take(), "which would run, whatever became of the change"
    server.say(REFUSED + READY)
    said = client.reads()
    assert kinds(said).startswith("E")
    assert sqlstates(said)[0] == "57014"
    assert server.closed, "and answers nobody any more"
    stage.leave()


def test_no_name_of_a_mark_is_used_twice(stage: Stage, server: Transport, client: Client) -> None:
    names = set()
    for tenant in [client, stage.client("acme")] * 3:
        tenant.says(encode.query(b"VACUUM"))
        asked = server.take()
        assert marked(asked) == encode.query(b"VACUUM")
        names |= {*re.findall(rb"tiergate_sure_\w+", asked)}
        server.say(assured() + done("VACUUM"))
        assert tenant.kinds() == "CZ"
    assert len(names) == 6
    stage.leave()


def test_a_mark_that_is_missing_ends_the_connection(stage: Stage, server: Transport, client: Client) -> None:
    """It cannot be, and if it were nobody would answer the Query."""
    client.says(encode.query(b"VACUUM"))
    server.say(assured()[: -len(encode.frame(b"t", b"\0\0") + encode.NO_DATA + encode.CLOSE_COMPLETE)])
    server.say(encode.error("no such statement", "26000"))
    assert client.kinds() == "EZ"
    assert server.closed
    stage.leave()


def test_an_error_behind_it_is_that_of_the_query(stage: Stage, server: Transport, client: Client) -> None:
    client.says(encode.query(b"INSERT INTO t VALUES (1)"))
    server.say(assured() + encode.error("duplicate", "23505"))
    assert client.kinds() == "E"
    server.say(READY)
    assert client.kinds() == "Z"
    stage.leave()


def test_so_is_what_a_cancel_of_the_clients_makes(stage: Stage, server: Transport, client: Client) -> None:
    client.says(encode.query(b"VACUUM"))
    stage.plane.cancel(CancelRequest(client.session.pid, client.session.key))
    assert not stage.network.cancels, "the change is not struck"
    server.say(assured())
    stage.pools.step()
    server.say(REFUSED)
    assert client.kinds() == "E"
    assert not server.closed
    server.say(READY)
    assert client.kinds() == "Z"
    stage.leave()


@pytest.mark.parametrize(
    "request_",
    [
        encode.query(b"SELECT set_config('work_mem', '1MB', false)"),
        encode.query(b"SELECT 1" + b" " * 65_536),
        encode.frame(b"F", b"\0\0\0\1" + bytes(6)),
        encode.query(b"INSERT INTO t VALUES (1)")[:-4],
    ],
)
def test_anything_else_waits_for_the_change(
    stage: Stage, server: Transport, client: Client, request_: bytes
) -> None:
    client.says(request_)
    asked = server.take()
    if asked:
        assert b"pg_catalog.set_config" in asked
        assert asked.endswith(encode.SYNC)
        assert asked.count(encode.SYNC) == 1
        assert b"tiergate_sure" not in asked
    stage.leave()


def test_who_keeps_its_connection_waits(stage: Stage, server: Transport, client: Client) -> None:
    client.session.pins = frozenset({PinReason.LISTEN})
    client.says(encode.query(b"VACUUM"))
    assert b"VACUUM" not in server.take()
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
    assert b"pg_catalog.set_config" in asked, "ahead of it"
    assert asked.index(encode.SYNC) < asked.index(b"BEGIN")
    assert asked.endswith(ONE)
    stage.leave()


_PARTS = st.sampled_from(
    [b"SELECT a ", b"into", b"INTO ", b"\xc3\xa4", b'"', b"_", b" ", b"a" * 31, b"b" * 29]
)


@settings(max_examples=examples(200))
@given(st.lists(_PARTS, max_size=12).map(b"".join))
@example(b"a" * 60)
@example(b"SELECT " + b"a" * 60 + b" ")
@example(b'"' + b" " * 60)
def test_what_a_parser_says_something_of_is_never_overlooked(text: bytes) -> None:
    assert entering._differs(text) == (entering._differs_so(text) is not None)
