"""A session of a tenant with a rate: who waits, who is refused, and that a transaction never is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

import pytest

from proxy.errors import QueryCanceled, ShuttingDown
from proxy.model import ClientOptions, Directory, Limits, PoolMode
from proxy.protocol.lifecycle import SessionState
from proxy.protocol.pipeline import BATCH
from proxy.registry.memory import Registry
from proxy.wire import encode
from tests.client.stage import (
    BEGIN,
    COMMIT,
    DIRECTORY,
    Client,
    Stage,
    assured,
    done,
    inquired,
    settings_taken,
)
from tests.clocks import PlaneClock
from tests.rawclient import kinds, sqlstates

_ROUNDING = 1e-6
ONE = encode.query(b"SELECT 1")
TWO = encode.query(b"SELECT 2")
WORK = encode.parse(b"", b"SELECT 1") + encode.bind(b"", b"", []) + encode.execute()
WORKED = encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("SELECT 1")


class Bell:
    def __init__(self, at: float, ring: Callable[[], None]) -> None:
        self.at, self.ring, self.silent = at, ring, False

    def cancel(self) -> None:
        self.silent = True


class Scene(PlaneClock):
    """acme may ask one query a tenth of a second, and wait a quarter for it; its first query has been asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mode: PoolMode = PoolMode.TRANSACTION) -> None:
        self.now = monotonic()  # near to that of what does not ask the data plane's clock
        self.bells: list[Bell] = []
        self.stage = Stage(monkeypatch, directory=self.directory(max_qps=10, burst=1), pool_mode=mode)
        self.stage.plane.later = self._later

    @staticmethod
    def directory(**limits: float) -> Directory:
        acme = replace(DIRECTORY.tenants["acme"], limits=Limits(rate_wait=0.25, **limits))  # type: ignore[arg-type]
        return replace(DIRECTORY, tenants={**DIRECTORY.tenants, "acme": acme})

    def _later(self, seconds: float, callback: Callable[[], None]) -> Bell:
        self.bells.append(Bell(self.now + seconds, callback))
        return self.bells[-1]

    def passes(self, seconds: float) -> None:
        """Time, with the timers that run out in it."""
        end = self.now + seconds
        while due := [bell for bell in self.bells if bell.at <= end + _ROUNDING and not bell.silent]:
            bell = min(due, key=lambda bell: bell.at)
            self.bells.remove(bell)
            self.now = bell.at
            bell.ring()
        self.now = end

    def leave(self) -> None:
        self.stage.leave()
        assert all(bell.silent for bell in self.bells)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def over_the_rate(scene: Scene) -> tuple[Client, Client]:
    """Two clients of acme, on one idle connection, after the query that may be asked."""
    client, server = scene.stage.unlinked()
    other = scene.stage.client()
    other.session.told = client.session.told
    server.take()
    scene.passes(1.0)
    client.says(ONE)
    assert server.take() == ONE
    server.say(done())
    assert client.kinds() == "CZ"
    return client, other


def test_within_the_rate_nothing_waits(scene: Scene) -> None:
    client, _ = over_the_rate(scene)
    for _ in range(5):
        scene.passes(0.1)
        client.says(ONE)
        assert scene.stage.server().take() == ONE
        scene.stage.server().say(done())
        assert client.kinds() == "CZ"
    assert not scene.bells
    scene.leave()


def test_over_the_rate_it_waits_without_a_connection(scene: Scene) -> None:
    client, other = over_the_rate(scene)
    server = scene.stage.server()
    client.says(ONE)
    other.says(TWO)
    assert client.state is other.state is SessionState.WAITING
    assert not scene.stage.pool.active
    assert len(scene.bells) == 1
    scene.passes(0.1)
    assert server.take() == ONE
    server.say(done())
    assert client.kinds() == "CZ"
    assert other.reads() == []
    scene.passes(0.1)
    assert server.take() == TWO
    server.say(done())
    assert other.kinds() == "CZ"
    stats = client.session.account.stats
    assert (stats.throttled, stats.refused_rate, stats.errors) == (2, 0, {})
    scene.leave()


def test_what_would_wait_too_long_is_refused_and_the_session_goes_on(scene: Scene) -> None:
    client, other = over_the_rate(scene)
    third, fourth = scene.stage.client(), scene.stage.client()
    client.says(ONE)
    other.says(ONE)
    third.says(ONE)
    said = third.reads()
    assert kinds(said) == "EZ"
    assert sqlstates(said) == ["53400"]
    assert b"max_qps is 10" in said[0].body
    assert b"Retry in 0.30 seconds." in said[0].body
    fourth.says(WORK + encode.SYNC)
    assert fourth.kinds() == "EZ", "skipped up to the Sync"
    assert third.session.account.stats.refused_rate == 2
    assert third.session.account.stats.errors == {"53400": 2}
    third.says(encode.SYNC)
    assert third.kinds() == "Z"
    scene.leave()


@pytest.mark.parametrize("ends", ["cancel", "hang up", "terminate"])
def test_who_gives_up_leaves_the_line(scene: Scene, ends: str) -> None:
    client, other = over_the_rate(scene)
    client.says(ONE)
    other.says(TWO)
    if ends == "cancel":
        client.session.cancel()
        assert sqlstates(client.reads()) == [QueryCanceled.sqlstate]
        assert client.state is SessionState.IDLE
    else:
        client.transport.hang_up()
        assert client.state is SessionState.CLOSED
    scene.passes(0.1)
    assert scene.stage.server().take() == TWO, "the next one takes its place"
    scene.stage.server().say(done())
    scene.leave()


def test_a_transaction_is_never_broken_off_but_counts(scene: Scene) -> None:
    client, other = over_the_rate(scene)
    server = scene.stage.server()
    scene.passes(0.1)
    client.says(BEGIN)
    server.say(done("BEGIN", b"T"))
    for _ in range(4):
        client.says(ONE)
        assert server.take().endswith(ONE)
        server.say(done(status=b"T"))
    client.says(WORK + encode.SYNC)
    assert server.take() == WORK + encode.SYNC
    server.say(WORKED + encode.ready_for_query(b"E"))
    client.says(COMMIT)
    assert server.take() == COMMIT
    server.say(done("ROLLBACK"))
    assert "E" not in client.kinds()
    other.says(ONE)
    assert sqlstates(said := other.reads()) == ["53400"]
    assert b"Retry in 0.70 seconds." in said[0].body
    scene.passes(0.7)
    other.says(ONE)
    assert server.take() == ONE
    server.say(done())
    scene.leave()


def test_in_one_chunk_each_query_is_counted(scene: Scene) -> None:
    client, _ = over_the_rate(scene)
    server = scene.stage.server()
    scene.passes(0.1)
    client.says(ONE + TWO + ONE + TWO)
    assert server.take() == ONE, "what comes next may stand in a transaction that this one begins"
    server.say(done())
    assert client.state is SessionState.WAITING
    assert not scene.stage.pool.active
    scene.passes(0.1)
    assert server.take() == TWO
    server.say(done())
    scene.passes(0.1)
    assert server.take() == ONE
    server.say(done())
    scene.passes(0.1)
    assert server.take() == TWO
    server.say(done())
    assert client.kinds() == "CZ" * 4
    scene.leave()


def test_a_transaction_in_one_chunk_goes_through(scene: Scene) -> None:
    client, _ = over_the_rate(scene)
    server = scene.stage.server()
    scene.passes(0.1)
    client.says(BEGIN + ONE + TWO + COMMIT)
    assert server.take() == BEGIN
    server.say(done("BEGIN", b"T"))
    ends = done(status=b"T") + done("COMMIT")  # which need not be waited for
    for asked, answer in ((ONE, done(status=b"T")), (TWO + COMMIT, ends)):
        assert server.take() == asked
        server.say(answer)
    assert client.kinds() == "CZ" * 4
    assert client.session.account.gate is not None
    assert client.session.account.gate.due(scene.now) == pytest.approx(0.4)
    scene.leave()


def test_each_execute_of_a_pipeline_counts(scene: Scene) -> None:
    client, _ = over_the_rate(scene)
    server = scene.stage.server()
    scene.passes(0.1)
    client.says(WORK * 3 + encode.SYNC)
    assert server.take() == WORK * 3 + encode.SYNC
    server.say(WORKED * 3 + encode.ready_for_query())
    assert client.kinds() == "12C" * 3 + "Z"
    assert client.session.account.gate is not None
    assert client.session.account.gate.due(scene.now) == pytest.approx(0.3)
    scene.leave()


def test_a_prepare_and_its_execute_count_once(scene: Scene) -> None:
    client, _ = over_the_rate(scene)
    server = scene.stage.server()
    scene.passes(0.1)
    client.says(encode.parse(b"s", b"SELECT 1") + encode.SYNC)
    assert server.take().endswith(encode.SYNC)
    server.say(encode.PARSE_COMPLETE + encode.ready_for_query())
    client.says(encode.bind(b"", b"s", []) + encode.execute() + encode.SYNC)
    assert server.take().endswith(encode.SYNC)
    server.say(encode.BIND_COMPLETE + done())
    assert client.kinds() == "1Z2CZ"
    client.says(encode.close(b"S", b"s") + encode.SYNC)
    assert client.state is SessionState.LINKED, "closing one asks nothing"
    scene.leave()


def test_several_statements_in_a_text_that_has_been_parsed_count_each(scene: Scene) -> None:
    client, _ = over_the_rate(scene)
    server = scene.stage.server()
    scene.passes(0.1)
    client.says(encode.query(b"SET timezone = 'UTC'; SELECT 1; SELECT 2"))
    assert server.take()
    server.say(encode.command_complete("SET") + encode.command_complete("SELECT 1") + done())
    assert client.session.account.gate is not None
    assert client.session.account.gate.due(scene.now) == pytest.approx(0.3)
    scene.leave()


def test_in_session_mode_it_waits_with_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, PoolMode.SESSION)
    client, server = scene.stage.kept()
    client.says(ONE)
    assert server.take() == ONE
    server.say(done())
    client.reads()
    client.says(ONE + TWO + encode.query(b"SELECT 3") + encode.query(b"SELECT 4"))
    assert server.take() == b""
    assert client.state is SessionState.LINKED
    scene.passes(0.1)
    assert server.take() == ONE
    server.say(done())
    client.says(encode.SYNC)
    scene.passes(0.1)
    assert server.take() == TWO
    server.say(done())
    scene.passes(0.0)
    client.session.cancel()
    assert sqlstates(client.reads()) == ["57014"]
    scene.passes(0.1)
    assert server.take().endswith(encode.query(b"SELECT 4") + encode.SYNC)
    server.say(done() + encode.ready_for_query())
    client.reads()
    assert client.session.account.gate is not None
    client.session.account.gate.spend(50, scene.now)
    client.says(WORK + encode.SYNC + ONE)
    assert client.kinds() == "EZEZ"
    assert server.take() == b""
    assert client.state is SessionState.LINKED
    scene.passes(10.0)
    client.says(WORK + encode.SYNC)
    assert server.take() == WORK + encode.SYNC
    server.say(WORKED + encode.ready_for_query())
    assert client.kinds() == "12CZ"
    scene.leave()


def test_a_rate_may_come_change_and_go(scene: Scene) -> None:
    client, other = over_the_rate(scene)
    server = scene.stage.server()
    client.says(ONE)
    registry, plane = scene.stage.registry, scene.stage.plane

    def says(**limits: float) -> None:
        registry.replace(scene.directory(**limits), ClientOptions())
        tenant = registry.known("acme")
        assert tenant is not None
        plane.accounts.account(tenant)

    says()
    other.says(TWO)
    assert server.take() == TWO, "no rate any more"
    server.say(done())
    scene.passes(0.25)
    assert server.take() == ONE, "whoever waited is let in"
    server.say(done())
    says(max_qps=10, burst=1)
    other.says(TWO)
    assert server.take() == TWO
    server.say(done())
    other.says(ONE)
    assert other.state is SessionState.WAITING
    scene.leave()


def test_others_are_not_concerned(scene: Scene) -> None:
    client, _ = over_the_rate(scene)
    client.says(ONE)
    beta = scene.stage.client("beta")
    assert beta.session.account.gate is None
    beta.says(ONE)
    assert beta.state is SessionState.LINKED
    scene.leave()


def test_without_a_wait_it_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    client, _ = over_the_rate(scene)
    assert client.session.account.gate is not None
    limits = Limits(max_qps=10, burst=1, rate_wait=0).over(
        Registry(DIRECTORY, ClientOptions()).limits(client.session.tenant)
    )
    client.session.account.gate.update(limits)
    client.says(ONE)
    assert sqlstates(client.reads()) == ["53400"]
    scene.leave()


# --- sessions that choose, pin or end ---------------------------------------------------------------


@pytest.mark.parametrize("extended", [False, True])
def test_of_who_chooses_its_tenant_the_first_statement_of_a_block_may_wait(
    scene: Scene, extended: bool
) -> None:
    ask = WORK + encode.SYNC if extended else ONE
    answer = WORKED + encode.ready_for_query(b"T") if extended else done(status=b"T")
    _, other = over_the_rate(scene)
    assert other.state is SessionState.IDLE
    client = scene.stage.chooser()
    client.says(BEGIN, encode.query(b"SET LOCAL app.tenant_id = 'acme'"))
    assert client.kinds() == "CZCZ"
    client.says(ask)
    assert client.state is SessionState.WAITING
    scene.passes(0.1)
    server = scene.stage.server()
    sent = server.take()
    assert b"BEGIN" in sent
    begun = encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("BEGIN")
    if not sent.endswith(ask):
        server.say(settings_taken())
        assert server.take().endswith(ask)
    server.say(begun + answer)
    assert client.kinds().endswith("CZ")
    for _ in range(3):
        client.says(ONE)
        assert server.take() == ONE, "it is within its block now"
        server.say(done(status=b"T"))
    client.says(COMMIT)
    server.say(done("COMMIT"))
    assert "E" not in client.kinds()
    assert client.state is SessionState.IDLE
    scene.leave()


def test_a_block_of_who_chooses_its_tenant_that_is_over_the_rate_has_failed(scene: Scene) -> None:
    _, other = over_the_rate(scene)
    assert other.session.account.gate is not None
    other.session.account.gate.spend(10, scene.now)
    client = scene.stage.chooser()
    client.says(BEGIN, encode.query(b"SET LOCAL app.tenant_id = 'acme'"))
    assert client.kinds() == "CZCZ"
    client.says(ONE)
    said = client.reads()
    assert sqlstates(said) == ["53400"]
    assert said[-1].body == b"E"
    client.says(ONE)
    assert sqlstates(client.reads()) == ["25P02"]
    client.says(encode.query(b"ROLLBACK"))
    assert client.kinds() == "CZ"
    assert scene.stage.server().take() == b""
    client.says(encode.query(b"SET app.tenant_id = 'beta'"), ONE)
    assert client.state is not SessionState.WAITING
    assert b"53400" not in client.transport.take()
    scene.leave()


def test_who_chooses_and_keeps_its_connection_is_held_too(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, PoolMode.SESSION)
    client = scene.stage.chooser("acme")
    pool = scene.stage.pool
    pool.fill(1)
    scene.stage.pools.step()
    taken = pool.acquire(client.session, 0.0)
    assert taken is not None
    client.session.keep(taken)
    server = scene.stage.server()
    client.says(ONE)
    assert b"acme" in server.take()
    server.say(settings_taken())
    assert server.take() == ONE
    server.say(done())
    client.reads()
    for ask, answer in ((ONE, done()), (WORK + encode.SYNC, WORKED + encode.ready_for_query())):
        client.says(ask)
        assert server.take() == b""
        scene.passes(0.1)
        assert server.take() == ask
        server.say(answer)
        assert client.kinds().endswith("CZ")
    assert client.session.account.gate is not None
    client.session.account.gate.spend(10, scene.now)
    client.says(ONE, WORK + encode.SYNC, ONE)
    assert client.kinds() == "EZ" * 3
    assert server.take() == b""
    scene.leave()


def test_a_pinned_session_waits_with_its_connection(scene: Scene) -> None:
    client, server = scene.stage.unlinked()
    scene.passes(1.0)
    client.says(encode.query(b"LISTEN news"))
    server.take()
    server.say(done("LISTEN"))
    assert server.take(), "it is asked whether it listens"
    server.say(inquired(left="t"))
    assert client.kinds() == "CZ"
    assert client.state is SessionState.PINNED
    client.says(ONE + TWO)
    assert server.take() == b""
    assert client.state is SessionState.PINNED
    scene.passes(0.1)
    assert server.take() == ONE
    server.say(done())
    scene.passes(0.1)
    assert server.take() == TWO
    server.say(done())
    assert client.kinds() == "CZCZ"
    scene.leave()


def test_a_session_that_is_ended_while_it_waits_is_told_so(scene: Scene) -> None:
    client, _ = over_the_rate(scene)
    client.says(ONE)
    client.session.end(ShuttingDown("terminating connection due to administrator command"))
    assert sqlstates(client.reads()) == ["57P01"]
    assert client.state is SessionState.CLOSED
    assert client.session.account.gate is not None
    assert not client.session.account.gate.waiting
    scene.leave()


def test_a_tenant_that_is_suspended_while_it_waits_is_not_served(scene: Scene) -> None:
    client, _ = over_the_rate(scene)
    client.says(ONE)
    scene.stage.registry.disable("tenant", "acme")
    scene.passes(0.1)
    assert sqlstates(client.reads()) == ["57P01"]
    assert client.state is SessionState.CLOSED
    scene.leave()


def test_a_batch_that_is_taken_up_as_one_is_one_query(scene: Scene) -> None:
    """In a transaction block its messages are counted one by one, for nothing there asks ahead."""
    client, _ = over_the_rate(scene)
    gate = client.session.account.gate
    assert gate is not None

    def worked(status: bytes = b"I") -> None:
        scene.stage.server().say(WORKED + encode.ready_for_query(status))
        assert client.kinds() == "12CZ"

    for _ in range(3):
        scene.passes(0.1)
        client.says(WORK + encode.SYNC)
        assert client.session.server is not None
        assert client.session.server.pipeline.entries[0].kind == BATCH
        assert scene.stage.server().take() == WORK + encode.SYNC
        worked()
        assert gate.due(scene.now) == pytest.approx(0.1)
    client.says(WORK + encode.SYNC)
    assert client.state is SessionState.WAITING
    scene.passes(0.1)
    worked()
    scene.passes(0.1)
    client.says(encode.query(b"BEGIN"))
    scene.stage.server().say(done("BEGIN", b"T"))
    assert client.kinds() == "CZ"
    for spent in (1, 2):
        client.says(WORK + encode.SYNC)
        worked(b"T")
        assert gate.due(scene.now) == pytest.approx(0.1 + 0.1 * spent)
    client.says(encode.query(b"COMMIT"))
    scene.stage.server().say(done("COMMIT"))
    assert client.kinds() == "CZ"
    scene.leave()


def test_a_block_that_may_be_anothers_is_begun_at_once_within_the_rate(scene: Scene) -> None:
    """And counted, as other BEGINs are. Over the rate it is held back, and waits for nothing."""
    client = scene.stage.chooser("acme")
    client.says(ONE)
    scene.stage.pools.step()
    server = scene.stage.server()
    server.take()
    server.say(assured() + done())
    server.take()
    assert client.kinds() == "CZ"
    chooser, gate = client.session.chooser, client.session.account.gate
    assert chooser is not None
    assert gate is not None
    chooser.quiet = 8  # blocks that have named no tenant
    for _ in range(2):
        scene.passes(1.0)
        client.says(BEGIN)
        assert server.take() == BEGIN
        server.say(done("BEGIN", b"T"))
        client.says(COMMIT)
        assert server.take() == COMMIT
        server.say(done("COMMIT"))
        assert client.kinds() == "CZCZ"
        assert gate.due(scene.now) == pytest.approx(0.2)
    client.says(BEGIN)
    assert client.kinds() == "CZ"
    assert not server.take()
    client.says(ONE)
    assert client.state is SessionState.WAITING
    client.session.cancel()
    assert sqlstates(client.reads()) == ["57014"]
    scene.leave()
