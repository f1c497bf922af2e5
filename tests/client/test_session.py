"""One client's conversation: what goes to the server, what comes back, and what becomes of both at the end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.errors import QueryCanceled, ShuttingDown
from proxy.model import ServerOptions
from proxy.protocol.lifecycle import ServerState, SessionState
from proxy.wire import encode
from proxy.wire.startup import CancelRequest
from tests.client.stage import BEGIN, COMMIT, DIRECTORY, Stage, assured, done, settings_taken
from tests.rawclient import errors, kinds, sqlstates

ONE = encode.query(b"SELECT 1")
TWO = encode.query(b"SELECT 2")
EXTENDED = encode.bind(b"", b"", []) + encode.execute()
COPY_IN = encode.frame(b"G", b"\0\0\0")
FAILED = encode.error("no", "42601")
COPY_DATA = encode.frame(b"d", b"row\n")
COPY_DONE, COPY_FAIL = encode.frame(b"c", b""), encode.frame(b"f", b"\0")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


# --- bytes in, bytes out ----------------------------------------------------------------------------


def test_linked_a_chunk_passes_both_ways_as_it_is(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(ONE, TWO)
    assert server.take() == ONE + TWO
    answer = encode.data_row(["1"]) + done(status=b"T")
    server.say(answer[:7])
    server.say(answer[7:], answer)
    assert client.transport.take() == answer * 2
    stage.leave()


def test_a_request_in_pieces_goes_to_the_server_when_it_is_whole(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(ONE[:4])
    client.says(ONE[4:9])
    assert server.take() == b""
    client.says(ONE[9:] + TWO[:3])
    assert server.take() == ONE
    stage.leave()


def test_copy_data_passes_before_it_is_whole(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(encode.query(b"COPY t FROM STDIN"))
    server.say(COPY_IN)
    server.take()
    row = encode.frame(b"d", b"x" * 100)
    client.says(row[:20])
    assert server.take() == row[:20]
    client.says(row[20:] + COPY_DONE)
    assert server.take() == row[20:] + COPY_DONE
    server.say(done("COPY 1", b"T"))
    assert client.kinds() == "GCZ"
    stage.leave()


def test_sync_and_flush_of_a_client_without_a_server_need_none(stage: Stage) -> None:
    client = stage.client()
    client.says(encode.FLUSH, encode.SYNC, COPY_DONE, COPY_FAIL, COPY_DATA, encode.SYNC)
    assert client.transport.take() == encode.ready_for_query() * 2
    assert not stage.network.logins
    assert client.state is SessionState.IDLE
    stage.leave()


def test_a_client_that_waits_long_gets_a_notice(stage: Stage) -> None:
    client = stage.client()
    stage.pools.pause()
    client.says(ONE)
    assert client.reads() == []
    client.session.still_waits()
    (notice,) = client.reads()
    assert notice.kind == "N"
    assert b"SNOTICE\0" in notice.body
    assert b"client being queued" in notice.body
    stage.leave()


def test_bytes_that_are_not_the_protocol_end_the_session(stage: Stage) -> None:
    client, _server = stage.linked()
    client.says(b"HTTP/1.1 GET /\r\n")
    (error,) = errors(client.reads())
    assert (error["S"], error["C"]) == ("FATAL", "08P01")
    assert client.state is SessionState.CLOSED
    assert client.transport.closed
    stage.leave()


# --- the transaction's end --------------------------------------------------------------------------


def test_the_connection_goes_back_with_the_answer_that_ends_the_transaction(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(COMMIT)
    server.say(done("COMMIT")[:-1])
    assert client.state is SessionState.LINKED
    server.say(b"I")
    assert client.state is SessionState.IDLE
    assert list(stage.pool.idle) == [client_server(stage)]
    stage.leave()


def client_server(stage: Stage) -> object:
    return stage.server().protocol


def test_it_stays_while_anything_else_is_owed(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(ONE, TWO)
    server.say(done())
    assert client.state is SessionState.LINKED
    server.say(done())
    assert client.state is SessionState.IDLE
    stage.leave()


def test_it_stays_while_a_request_is_on_its_way_in_part(stage: Stage) -> None:
    client, server = stage.unlinked()
    row = encode.frame(b"d", b"x" * 100)
    client.says(ONE, row[:50])
    server.say(done())
    assert client.state is SessionState.LINKED
    client.says(row[50:])
    assert client.state is SessionState.IDLE
    assert server.take() == ONE + row
    stage.leave()


def test_it_stays_in_a_failed_transaction(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(ONE)
    server.say(FAILED, encode.ready_for_query(b"E"))
    assert client.state is SessionState.LINKED
    client.says(encode.query(b"ROLLBACK"))
    server.say(done("ROLLBACK"))
    assert client.state is SessionState.IDLE
    stage.leave()


def test_it_stays_within_an_extended_batch(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELECT 1") + encode.FLUSH)
    server.say(encode.PARSE_COMPLETE)
    assert client.state is SessionState.LINKED
    client.says(encode.SYNC)
    server.say(encode.ready_for_query())
    assert client.state is SessionState.IDLE
    stage.leave()


def test_what_comes_behind_the_end_begins_the_next_transaction(stage: Stage) -> None:
    client, server = stage.unlinked()
    for _ in range(3):
        client.says(ONE)
        server.say(done())
    assert client.kinds() == "CZCZCZ"
    assert stage.pool.stats.server_assignments == 4
    assert client.session.account.stats.transactions == 4
    stage.leave()


def test_a_drain_ends_the_session_with_its_transaction(stage: Stage) -> None:
    client, server = stage.linked()
    stage.plane.draining = True
    client.says(ONE)
    server.say(done(status=b"T"))
    assert client.state is SessionState.LINKED
    client.says(COMMIT)
    server.say(done("COMMIT"))
    said = client.reads()
    assert kinds(said) == "CZCZE"
    assert sqlstates(said) == ["57P01"]
    assert client.transport.closed
    assert len(stage.pool.idle) == 1
    stage.leave()


# --- waiting ----------------------------------------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """One server connection for everybody."""
    stage = Stage(monkeypatch)
    stage.pools.servers.limit = 1
    return stage


def test_what_is_sent_while_waiting_is_kept_in_order(narrow: Stage) -> None:
    holder, server = narrow.linked()
    client = narrow.client()
    client.says(ONE)
    client.says(TWO[:5])
    client.says(TWO[5:])
    assert client.state is SessionState.WAITING
    holder.says(COMMIT)
    assert server.take() == COMMIT
    server.say(done("COMMIT"))
    assert server.take() == ONE + TWO
    server.say(done(), done())
    assert client.kinds() == "CZCZ"
    narrow.leave()


def test_who_waits_is_not_read_beyond_a_bound_and_is_read_again_later(narrow: Stage) -> None:
    holder, server = narrow.linked()
    client = narrow.client()
    client.says(ONE)
    big = encode.query(b"SELECT '" + b"x" * 70_000 + b"'")
    client.says(big)
    assert not client.transport.reading
    holder.says(COMMIT)
    server.take()
    server.say(done("COMMIT"))
    assert client.transport.reading
    assert server.take() == ONE + big
    narrow.leave()


def test_a_cancel_while_waiting_answers_the_first_request_only(narrow: Stage) -> None:
    holder, server = narrow.linked()
    client = narrow.client()
    client.says(ONE, TWO)
    narrow.plane.cancel(CancelRequest(client.session.pid, client.session.key))
    said = client.reads()
    assert kinds(said) == "EZ"
    assert sqlstates(said) == [QueryCanceled.sqlstate]
    assert client.state is SessionState.WAITING, "the second one waits now"
    holder.says(COMMIT)
    server.take()
    server.say(done("COMMIT"))
    assert server.take() == TWO
    narrow.leave()


def test_an_extended_batch_that_is_refused_is_skipped_to_its_sync(narrow: Stage) -> None:
    _holder, _server = narrow.linked()
    client = narrow.client()
    batch = encode.parse(b"s", b"SELECT 1") + encode.bind(b"", b"s", []) + encode.execute()
    client.says(batch)
    narrow.plane.cancel(CancelRequest(client.session.pid, client.session.key))
    assert client.kinds() == "E"
    client.says(batch + encode.FLUSH)
    assert client.kinds() == ""
    client.says(encode.SYNC + encode.SYNC)
    assert client.kinds() == "ZZ"
    assert client.state is SessionState.IDLE
    narrow.leave()


def test_who_leaves_while_waiting_waits_no_longer(narrow: Stage) -> None:
    _holder, _ = narrow.linked()
    client = narrow.client()
    client.says(ONE)
    client.transport.hang_up()
    assert not narrow.pool.queue
    assert client.session.account.waiting == 0
    narrow.leave()


def test_thousands_of_refused_requests_in_one_chunk_are_all_answered(narrow: Stage) -> None:
    _holder, _ = narrow.linked()
    narrow.pool.active.clear()
    narrow.pool.failed_with = ShuttingDown("down")
    narrow.pools.health.eject(narrow.pool.cluster.endpoints[0], float("inf"), "down")
    client = narrow.client()
    client.says(encode.query(b"") * 5_000)
    assert client.kinds() == "EZ" * 5_000


# --- goodbye ----------------------------------------------------------------------------------------


def test_who_says_goodbye_gives_the_connection_back(stage: Stage) -> None:
    client, _server = stage.unlinked()
    client.says(encode.TERMINATE)
    assert client.transport.closed
    assert len(stage.pool.idle) == 1
    assert stage.plane.sessions == set()
    assert stage.plane.clients.used == 0
    stage.leave()


def test_what_was_asked_before_the_goodbye_is_still_done(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(ONE + encode.TERMINATE)
    assert server.take() == ONE
    client.transport.hang_up()
    assert client.state is SessionState.LINKED
    server.say(done())
    assert client.state is SessionState.CLOSED
    assert len(stage.pool.idle) == 1, "and the connection lives on"
    stage.leave()


def test_who_says_goodbye_in_a_transaction_is_rolled_back(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(encode.TERMINATE)
    assert server.take() == encode.query(b"ROLLBACK")
    assert not stage.pool.idle
    server.say(done("ROLLBACK"))
    assert len(stage.pool.idle) == 1
    stage.leave()


def test_who_says_goodbye_behind_a_batch_without_sync_leaves_no_connection_in_use(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELECT 1") + EXTENDED + encode.TERMINATE)
    server.say(encode.PARSE_COMPLETE, encode.BIND_COMPLETE, encode.command_complete("SELECT 1"))
    assert client.state is SessionState.CLOSED
    assert not stage.pool.active
    stage.leave()


def test_who_says_goodbye_behind_a_batch_that_fails_without_sync_leaves_none_either(stage: Stage) -> None:
    """The server waits for a Sync that nobody will send."""
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELEC 1") + encode.TERMINATE)
    server.say(FAILED)
    assert client.state is SessionState.CLOSED
    assert not stage.pool.active
    stage.leave()


def test_who_says_goodbye_before_a_copy_begins_leaves_no_server_waiting_for_data(stage: Stage) -> None:
    client, server = stage.unlinked()
    ask = encode.query(b"COPY t FROM STDIN")
    client.says(ask + encode.TERMINATE)
    client.transport.hang_up()
    assert server.take().startswith(ask)
    server.say(COPY_IN)
    assert client.state is SessionState.CLOSED
    assert not stage.pool.active
    stage.leave()


def test_who_says_goodbye_behind_a_failed_batch_that_has_no_sync_leaves_none_either(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELEC 1"))
    server.say(FAILED)
    client.says(encode.TERMINATE)
    assert client.state is SessionState.CLOSED
    assert not stage.pool.active
    stage.leave()


@pytest.mark.parametrize("asked", [ONE, encode.parse(b"", b"SELECT 1"), ONE[:3] and ONE + TWO])
def test_who_vanishes_while_the_server_works_has_it_cancelled_and_closed(stage: Stage, asked: bytes) -> None:
    client, server = stage.unlinked()
    client.says(asked)
    client.transport.hang_up()
    assert client.state is SessionState.CLOSED
    assert not stage.pool.active
    stage.pools.step()
    assert stage.network.cancels == [101]
    assert server.aborted
    stage.leave()


def test_who_vanishes_within_a_copy_leaves_nothing(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.query(b"COPY t FROM STDIN"))
    server.say(COPY_IN)
    client.says(COPY_DATA)
    client.transport.hang_up()
    stage.pools.step()
    assert server.aborted
    stage.leave()


def test_who_vanishes_in_a_transaction_is_rolled_back(stage: Stage) -> None:
    client, server = stage.linked()
    client.transport.hang_up()
    assert server.take() == encode.query(b"ROLLBACK")
    server.say(done("ROLLBACK"))
    assert [s.state for s in stage.pool.connections()] == [ServerState.IDLE]
    stage.leave()


def test_answers_to_a_client_that_has_gone_are_written_nowhere(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(ONE + TWO + encode.TERMINATE)
    client.transport.hang_up()
    server.say(done())
    server.say(done())
    assert client.transport.take() == b""
    stage.leave()


def test_permits_are_given_back_once_whatever_ends_it_first(stage: Stage) -> None:
    client, _server = stage.linked()
    client.session.end(ShuttingDown("bye"))
    client.session.end(ShuttingDown("bye again"))
    assert len(errors(client.reads())) == 1
    client.transport.hang_up()
    assert stage.plane.clients.used == 0
    stage.leave()


# --- a server that goes -----------------------------------------------------------------------------


def test_a_lost_server_is_told_as_08006_and_ends_the_session(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(ONE)
    server.hang_up()
    (error,) = errors(client.reads())
    assert (error["S"], error["C"]) == ("FATAL", "08006")
    assert client.state is SessionState.CLOSED
    stage.leave()


def test_the_servers_own_last_word_is_the_only_one(stage: Stage) -> None:
    client, server = stage.linked()
    server.say(encode.error("terminating connection", "57P01", severity="FATAL"))
    server.hang_up()
    said = client.reads()
    assert [(e["S"], e["C"]) for e in errors(said)] == [("FATAL", "57P01")]
    assert client.transport.closed
    stage.leave()


def test_a_server_that_talks_nonsense_is_cut_off_and_its_client_told(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(ONE)
    server.say(encode.BIND_COMPLETE)
    assert server.aborted
    assert sqlstates(client.reads()) == ["08P01"]
    stage.leave()


# --- backpressure -----------------------------------------------------------------------------------


def test_a_client_that_cannot_be_written_to_stops_the_reading_of_its_server(stage: Stage) -> None:
    client, server = stage.linked()
    client.session.pause_writing()
    assert not server.reading
    client.session.resume_writing()
    assert server.reading
    stage.leave()


def test_a_server_that_cannot_be_written_to_stops_the_reading_of_its_client(stage: Stage) -> None:
    client, server = stage.linked()
    protocol = server.get_protocol()
    protocol.pause_writing()  # type: ignore[attr-defined]
    assert not client.transport.reading
    protocol.resume_writing()  # type: ignore[attr-defined]
    assert client.transport.reading
    stage.leave()


def test_a_server_that_a_slow_client_gives_back_is_read_again(stage: Stage) -> None:
    client, server = stage.linked()
    client.session.pause_writing()
    client.says(encode.TERMINATE)
    assert server.reading
    stage.leave()


def test_a_slow_client_stops_the_reading_of_the_server_it_gets_later(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.session.pause_writing()
    client.says(ONE)
    assert not server.reading
    client.session.resume_writing()
    server.say(done())
    assert client.kinds() == "CZ"
    stage.leave()


def test_a_client_whose_copy_failed_early_is_read_on(stage: Stage) -> None:
    """The server ends the copy while it still has to be sent data, and the reading of the client is stopped."""
    client, server = stage.unlinked()
    client.says(encode.query(b"COPY t FROM STDIN"))
    server.say(COPY_IN)
    client.says(COPY_DATA * 10)
    protocol = server.get_protocol()
    protocol.pause_writing()  # type: ignore[attr-defined]
    server.say(FAILED, encode.ready_for_query())
    if client.state is SessionState.LINKED:
        protocol.resume_writing()  # type: ignore[attr-defined]
    assert client.transport.reading
    client.says(COPY_DATA, COPY_DONE, ONE)
    assert server.take().endswith(ONE)
    stage.leave()


# --- cancels ----------------------------------------------------------------------------------------


def test_a_cancel_reaches_the_server_that_works(stage: Stage) -> None:
    client, _server = stage.unlinked()
    client.says(ONE)
    stage.plane.cancel(CancelRequest(client.session.pid, client.session.key))
    stage.pools.step()
    assert stage.network.cancels == [101]
    stage.leave()


def test_a_cancel_of_a_client_that_asks_nothing_goes_nowhere(stage: Stage) -> None:
    client, _server = stage.linked()
    stage.plane.cancel(CancelRequest(client.session.pid, client.session.key))
    other = stage.client()
    stage.plane.cancel(CancelRequest(other.session.pid, b"nope"))
    stage.pools.step()
    assert stage.network.cancels == []
    stage.leave()


def test_a_connection_meets_nobody_else_before_its_cancel_is_over(stage: Stage) -> None:
    client, server = stage.unlinked()
    stage.network.cancelling.open = False
    client.says(ONE)
    stage.plane.cancel(CancelRequest(client.session.pid, client.session.key))
    stage.pools.step()
    server.say(done())
    assert client.kinds() == "CZ"
    assert not stage.pool.idle
    stage.network.cancelling.open = True
    stage.pools.step()
    assert len(stage.pool.idle) == 1
    stage.leave()


def test_a_cancel_that_may_still_come_costs_the_connection(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(ONE)
    stage.network.cancel_fails = stage_lost()
    stage.plane.cancel(CancelRequest(client.session.pid, client.session.key))
    stage.pools.step()
    server.take()
    server.say(done())
    assert server.take() == encode.TERMINATE
    assert not stage.pool.idle
    stage.leave()


def stage_lost() -> Exception:
    from proxy.errors import ServerLost

    return ServerLost("gone")


# --- databases that must have no connection ---------------------------------------------------------

DROP = encode.query(b"DROP DATABASE appdb")


def test_idle_connections_are_closed_before_a_database_is_dropped(stage: Stage) -> None:
    one, first = stage.linked()
    two, second = stage.linked()
    one.says(COMMIT)
    first.take()
    first.say(done("COMMIT"))
    two.says(COMMIT)
    second.take()
    second.say(done("COMMIT"))
    one.reads()
    one.says(DROP)
    stage.pools.step()
    assert first.written == encode.TERMINATE, "the other idle one"
    assert second.take() == b"", "the statement waits"
    stage.network.hang_ups()
    stage.pools.step()
    assert second.take() == DROP
    second.say(done("DROP DATABASE"))
    assert one.kinds() == "CZ"
    stage.leave()


def test_each_such_statement_waits_again(stage: Stage) -> None:
    one, server = stage.unlinked()
    for _ in range(2):
        one.says(DROP)
        assert server.take() == b""
        stage.pools.step()
        assert server.take() == DROP
        server.say(done("DROP DATABASE"))
    stage.leave()


def test_such_a_statement_behind_a_change_of_state_waits_once(stage: Stage) -> None:
    """The answer to the change does not end the wait for the idle connections."""
    a, server = stage.unlinked(application_name="a")
    b = stage.client(application_name="b")
    b.says(ONE)
    server.take()
    server.say(assured(("application_name", "b")), done())
    for _ in range(2):
        a.says(ONE)
        server.take()
        server.say(settings_taken(("application_name", "a")), done())
        server.take()
        b.says(DROP)
        server.take()
        server.say(settings_taken(("application_name", "b")))
        assert DROP not in server.take()
        stage.pools.step()
        assert server.take() == DROP
        server.say(done("DROP DATABASE"))
        assert stage.pools.busy == 0
    stage.leave()


def test_who_vanishes_during_that_wait_leaves_nothing(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(DROP)
    client.transport.hang_up()
    stage.pools.step()
    assert DROP not in server.take()
    assert not stage.pool.active
    stage.leave()


# --- pools that live as long as their sessions ------------------------------------------------------


def test_a_pool_is_not_forgotten_while_a_session_may_come_back_to_it(stage: Stage) -> None:
    client, server = stage.unlinked()
    pool = client.session.pool
    pool.close_idle(pool.idle[0])
    server.hang_up()
    stage.pools.forget_unused(float("inf"))
    assert list(stage.pools) == [pool], "nobody would sweep, show or reload it"
    client.says(encode.TERMINATE)
    stage.pools.forget_unused(float("inf"))
    assert list(stage.pools) == []
    stage.leave()


def test_a_session_that_moves_lets_its_old_pool_go(stage: Stage) -> None:
    client, server = stage.unlinked()
    old = client.session.pool
    tenants = dict(DIRECTORY.tenants) | {"acme": replace(DIRECTORY.tenants["acme"], cluster="own")}
    stage.registry.replace(replace(DIRECTORY, tenants=tenants), stage.plane.options)
    client.says(ONE)
    assert client.session.pool is not old
    old.close_idle(old.idle[0])
    server.hang_up()
    stage.pools.forget_unused(float("inf"))
    assert list(stage.pools) == [client.session.pool]
    stage.leave()


# --- server options that sessions follow ------------------------------------------------------------


def test_in_session_mode_the_connection_is_kept_and_reset_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.model import PoolMode

    stage = Stage(monkeypatch, options=ServerOptions(pool_mode=PoolMode.SESSION))
    client, server = stage.kept()
    client.says(ONE)
    assert server.take() == ONE, "no state is applied: it was at the login"
    server.say(done())
    assert client.state is SessionState.LINKED
    client.says(encode.TERMINATE)
    assert server.take() == encode.query(b"DISCARD ALL")
    server.say(done("DISCARD ALL"))
    assert len(stage.pool.idle) == 1
    stage.leave()


def test_begin_is_refused_in_statement_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.model import PoolMode

    stage = Stage(monkeypatch, options=ServerOptions(pool_mode=PoolMode.STATEMENT))
    client = stage.client()
    client.says(BEGIN)
    stage.pools.step()
    server = stage.server()
    server.take()
    server.say(settings_taken())
    assert BEGIN not in server.take()
    server.say(encode.error("syntax error", "42601"), encode.ready_for_query())
    assert sqlstates(client.reads()) == ["0A000"]
    assert client.state is SessionState.IDLE
    stage.leave()
