"""Sessions that choose their tenant: what a server gets, and what becomes of a block that cannot be begun."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from proxy.model import Directory, PoolMode
from proxy.protocol.lifecycle import SessionState
from proxy.wire import encode
from proxy.wire.startup import CancelRequest
from tests.client.play import check
from tests.client.stage import BEGIN, COMMIT, DIRECTORY, Client, Stage, assured, done, frames, settings_taken
from tests.rawclient import errors, kinds, sqlstates
from tests.transports import Transport

ONE = encode.query(b"SELECT 1")
BETA = encode.query(b"SET LOCAL app.tenant_id = 'beta'")
ROLLBACK = encode.query(b"ROLLBACK")
CALL = encode.frame(b"F", b"\0\0\0\1" + bytes(6))  # follows no change that is not confirmed yet


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def names(client: Client, text: str) -> str:
    client.says(encode.query(text.encode()))
    return client.kinds()


BEGUN = encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("BEGIN")


def begins(sent: bytes) -> bytes:
    """How a server is told of the block, by the name that what was sent has for it."""
    (name,) = re.findall(rb"P.{4}(tiergate_\d+)\0BEGIN\0", sent, re.DOTALL)
    return encode.parse(name, b"BEGIN") + encode.bind(b"", name, []) + encode.execute()


def begun(stage: Stage, first: bytes = ONE, tenant: str = "beta") -> tuple[Client, Transport]:
    """A block of a tenant's whose first statement waits until a server has the state."""
    client = stage.chooser("acme")
    client.says(BEGIN)
    assert names(client, f"SET LOCAL app.tenant_id = '{tenant}'") == "CZCZ"
    client.says(first)
    stage.pools.step()
    return client, stage.server()


def test_nothing_is_asked_of_a_server_before_the_first_statement(stage: Stage) -> None:
    client = stage.chooser("acme")
    client.says(BEGIN, BETA, COMMIT)
    assert client.kinds() == "CZCZCZ"
    assert client.state is SessionState.IDLE
    assert not stage.network.servers
    stage.leave()


def test_state_and_block_go_out_together_and_the_statement_behind_them(stage: Stage) -> None:
    client, server = begun(stage)
    sent = server.take()
    assert b"beta" in sent
    assert sent.endswith(begins(sent) + ONE)
    assert sent.count(encode.SYNC) == 1
    server.say(assured() + BEGUN + done(status=b"T"))
    assert client.kinds() == "CZ"
    client.says(COMMIT)
    assert server.take() == COMMIT
    server.say(done("COMMIT"))
    assert client.kinds() == "CZ"
    assert client.state is SessionState.IDLE
    client.says(ONE)  # its own tenant's again
    assert b"acme" in server.take()
    stage.leave()


def test_a_request_that_waits_for_its_block_has_the_answers_flushed(stage: Stage) -> None:
    """A RESET among other statements waits until all before it is answered, and a BEGIN without a Sync is not."""
    client = stage.chooser("acme", TimeZone="UTC")
    client.says(encode.query(b"BEGIN; RESET TimeZone; SELECT 1"))
    stage.pools.step()
    server = stage.server()
    assert server.take().endswith(encode.FLUSH)
    server.say(assured() + BEGUN)
    assert b"RESET TimeZone" in server.take()
    stage.leave()


def test_its_counts_are_those_of_the_tenant_that_it_speaks_for(stage: Stage) -> None:
    client, server = begun(stage)
    server.say(assured() + BEGUN)
    accounts = {account.tenant.name: account for account in stage.plane.accounts}
    assert (accounts["beta"].servers.used, accounts["acme"].servers.used) == (1, 0)
    assert (accounts["beta"].clients.used, accounts["acme"].clients.used) == (0, 1)
    assert client.session.limits == stage.registry.limits(accounts["beta"].tenant, client.session.user)
    stage.leave()


def test_a_cancel_while_its_block_is_being_begun(stage: Stage) -> None:
    """It must not strike the change of tenant, and what waits is cancelled before it has begun."""
    client, server = begun(stage, CALL)
    server.take()
    assert stage.plane.cancel(CancelRequest(client.session.pid, client.session.key)) is not None
    assert stage.pools.busy == 0  # nothing is sent to the server
    server.say(settings_taken())
    assert server.take() == ROLLBACK
    assert client.reads() == []
    server.say(BEGUN + done("ROLLBACK"))
    said = client.reads()
    assert sqlstates(said) == ["57014"]
    assert said[-1].body == b"E"
    assert client.state is SessionState.IDLE
    client.says(ONE)
    assert sqlstates(client.reads()) == ["25P02"]
    client.says(ROLLBACK)
    assert client.kinds() == "CZ"
    assert server.take() == b""
    stage.leave()


@pytest.mark.parametrize("which", ["state", "parse", "begin"])
@pytest.mark.parametrize("extended", [False, True])
def test_a_block_that_cannot_be_begun_has_failed(stage: Stage, which: str, extended: bool) -> None:
    """The server skips what stands behind it, so that nothing runs outside of the block."""
    ask = encode.parse(b"", b"SELECT 1") + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC
    client, server = begun(stage, ask if extended else ONE)
    assert server.take().endswith(ask if extended else ONE)
    refusal = encode.error("no", "55P02")
    if which == "state":
        server.say(refusal + encode.ready_for_query())
    else:
        server.say(assured())
        server.say(refusal if which == "parse" else encode.PARSE_COMPLETE + encode.BIND_COMPLETE + refusal)
    said = client.reads()
    assert (sqlstates(said), said[-1].body) == (["55P02"], b"E")
    assert server.aborted  # nobody else is to meet it
    client.says(ROLLBACK)
    assert client.kinds() == "CZ"
    stage.leave()


def test_a_statement_that_gets_no_connection_fails_its_block(stage: Stage) -> None:
    _, server = begun(stage)
    other = stage.chooser("acme")
    third = stage.chooser("acme")
    for waiter in (other, third):
        waiter.says(BEGIN, ONE)
        assert waiter.kinds() == "CZ"
    stage.pools.step()
    assert third.state is SessionState.WAITING
    assert stage.plane.cancel(CancelRequest(third.session.pid, third.session.key)) is not None
    said = third.reads()
    assert (sqlstates(said), said[-1].body) == (["57014"], b"E")
    third.says(COMMIT)
    assert third.kinds() == "CZ"
    assert server is stage.server()
    stage.leave()


def test_portals_that_control_the_block_go_with_it(stage: Stage) -> None:
    """Each within its savepoint; not one that chooses a tenant, or goes back to where another stood."""
    client = stage.chooser("acme")
    client.says(BEGIN, encode.query(b"SAVEPOINT a"))
    assert names(client, "SET LOCAL app.tenant_id = 'beta'") == "CZCZCZ"
    for name, text in ((b"c", b"COMMIT"), (b"b", b"ROLLBACK TO a"), (b"n", b"RESET app.tenant_id")):
        client.says(encode.parse(b"", text) + encode.bind(name, b"", []) + encode.SYNC)
    client.says(encode.query(b"SAVEPOINT z"), ONE)
    assert client.kinds() == "12Z12Z12ZCZ"
    stage.pools.step()
    asked = frames(stage.server().take())
    bound = [frame.body.split(b"\0")[0] for frame in asked if frame.kind == "B"]
    assert [name for name in bound if name] == [b"c"]
    # Behind the end of the block the session speaks for another tenant.
    assert bound.index(b"c") < len(bound) - 1
    assert client.session.chooser.ends == {b"c"}
    stage.leave()


def test_a_client_that_leaves_while_its_block_is_being_begun(stage: Stage) -> None:
    client, server = begun(stage)
    server.take()
    client.transport.hang_up()
    assert client.state is SessionState.CLOSED
    assert not server.closed or server.aborted
    stage.leave()


def test_a_client_that_leaves_in_a_block_of_which_no_server_knows(stage: Stage) -> None:
    client = stage.chooser("acme")
    client.says(BEGIN, BETA, encode.TERMINATE)
    assert client.state is SessionState.CLOSED
    stage.leave()


def test_the_next_batch_waits_for_the_answers_of_the_one_before(stage: Stage) -> None:
    client, server = begun(stage, tenant="acme")
    assert server.take().endswith(ONE)
    server.say(assured() + BEGUN)
    client.says(COMMIT, encode.query(b"SET app.tenant_id = 'beta'"), ONE)
    assert server.take() == b""
    server.say(done(status=b"T"))
    assert server.take() == COMMIT
    server.say(done("COMMIT"))
    assert b"beta" in server.take()
    assert client.kinds() == "CZCZCZ"
    stage.leave()


def test_no_blocks_in_statement_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = replace(DIRECTORY.clusters["shared"], pool_mode=PoolMode.STATEMENT)
    stage = Stage(
        monkeypatch, directory=replace(DIRECTORY, clusters={**DIRECTORY.clusters, "shared": shared})
    )
    client = stage.chooser("big")
    client.says(BEGIN, BETA, ONE)  # from a cluster where there are some
    assert sqlstates(client.reads()) == ["0A000"]
    client.says(ROLLBACK)
    assert client.kinds() == "CZ"
    there = stage.chooser("acme")
    there.says(BEGIN)
    stage.pools.step()
    server = stage.server()
    assert b"BEGIN" not in server.take()
    server.say(assured() + encode.error("no", "42601") + encode.ready_for_query())
    assert sqlstates(there.reads()) == ["0A000"]
    stage.leave()


# --- changes of the registry ------------------------------------------------------------------------


def without(stage: Stage, tenant: str, **changes: object) -> Directory:
    tenants = dict(DIRECTORY.tenants)
    tenants[tenant] = replace(tenants[tenant], **changes)  # type: ignore[arg-type]
    return replace(DIRECTORY, tenants=tenants)


def test_a_tenant_that_is_suspended_is_an_error_and_no_end(stage: Stage) -> None:
    client = stage.chooser()
    assert names(client, "SET app.tenant_id = 'beta'") == "CZ"
    stage.registry.disable("tenant", "beta")
    client.says(ONE)
    assert [error["C"] for error in errors(client.reads())] == ["42501"]
    assert names(client, "SET app.tenant_id = 'beta'") == "EZ"
    stage.registry.enable("tenant", "beta")
    client.says(ONE)
    stage.pools.step()
    assert b"beta" in stage.server().take()
    stage.leave()


def test_a_tenant_that_moves_is_followed(stage: Stage) -> None:
    client = stage.chooser("acme")
    assert names(client, "SET app.tenant_id = 'beta'") == "CZ"
    stage.registry.replace(without(stage, "beta", cluster="own"), stage.plane.options)
    client.says(ONE)
    assert client.session.pool.key.cluster == "own"
    assert names(client, "SHOW app.tenant_id") == ""  # it waits
    stage.leave()


def test_a_user_that_is_gone_ends_its_session(stage: Stage) -> None:
    client = stage.chooser("acme")
    stage.registry.replace(replace(DIRECTORY, users={}), stage.plane.options)
    client.says(ONE)
    (error,) = errors(client.reads())
    assert (error["S"], error["C"]) == ("FATAL", "28000")
    assert client.state is SessionState.CLOSED
    stage.leave()


def test_a_user_may_be_told_of_fewer_tenants(stage: Stage) -> None:
    client = stage.chooser()
    assert names(client, "SET app.tenant_id = 'beta'") == "CZ"
    app = replace(DIRECTORY.users["app"], tenants=frozenset({"acme", "big"}))
    stage.registry.replace(replace(DIRECTORY, users={"app": app}), stage.plane.options)
    client.says(ONE)
    assert sqlstates(client.reads()) == ["42501"]
    assert names(client, "SET app.tenant_id = 'acme'") == "CZ"
    client.says(ONE)
    stage.pools.step()
    assert b"acme" in stage.server().take()
    stage.leave()


def test_without_any_cluster_nobody_can_be_waited_on(stage: Stage) -> None:
    for cluster in ("shared", "own"):
        stage.registry.disable("cluster", cluster)
    assert stage.registry.lobby() == ""
    stage.registry.enable("cluster", "own")
    assert stage.registry.lobby() == "own"
    stage.registry.enable("cluster", "shared")
    assert stage.registry.lobby() == "shared"


def test_what_no_tenant_serves_is_answered_at_once(stage: Stage) -> None:
    client = stage.chooser()
    client.says(
        encode.query(b"SELECT 1 FROM t"),
        encode.parse(b"", b"SELECT 2 FROM t") + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC,
    )
    said = client.reads()
    assert kinds(said) == "EZEZ"
    assert not stage.network.servers
    long = b"SELECT '" + b"x" * 1_100_000
    client.says(encode.query(long + b"'")[:1_050_000])
    assert sqlstates(client.reads()) == ["42501"]
    stage.leave()


def test_a_block_that_has_begun_keeps_its_connection_while_its_first_statement_waits() -> None:
    """What stands ahead of a DEALLOCATE may fail and is waited for, behind the BEGIN that no Sync has followed yet:
    another client must not get into that block meanwhile."""
    first = [encode.parse(b"a", b"BEGIN") + encode.SYNC, BEGIN, encode.query(b"DEALLOCATE a"), COMMIT]
    check([("acme", {}, first), ("acme", {}, [ONE])], [], 1, 200, waits=True, kind="chooser")


def test_what_is_sent_ahead_of_a_request_is_not_its_transaction() -> None:
    """Its request has not been sent when that is answered: who gave its connection back then, to another who must bring
    it to its own state first, got it back for the same again, and neither ever asked."""
    first = [encode.query(b"PREPARE a AS SELECT 1"), encode.query(b"EXECUTE a")]
    missing = encode.bind(b"", b"b", []) + encode.execute() + encode.SYNC
    script = [("acme", {"work_mem": "8MB"}, first), ("acme", {}, first), ("beta", {}, [missing])]
    check(script, [], 2, 1, waits=False, kind="chooser")
