"""How a session gets a server connection in its own state, what it is told of it, and what fails on the way."""

from __future__ import annotations

import pytest

from proxy.errors import NoHealthyEndpoint, ServerLost, ServerRefused
from proxy.model import ClientOptions
from proxy.protocol.lifecycle import SessionState
from proxy.wire import encode
from proxy.wire.startup import CancelRequest
from tests.client.stage import COMMIT, Client, Stage, done, inquired, settings_again, settings_taken
from tests.rawclient import Frame, kinds, sqlstates
from tests.transports import Transport

# Which are no statements to follow a change that is not confirmed yet, see `test_entering.py`.
ONE, TWO = encode.query(b"DO $$BEGIN END$$"), encode.query(b"DO $$BEGIN NULL; END$$")
CREATE = encode.query(b"CREATE TABLE t ()")
REFUSED = encode.error("canceling statement due to user request", "57014")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """One server connection for everybody."""
    stage = Stage(monkeypatch)
    stage.pools.servers.limit = 1
    return stage


def cancel(client: Client) -> None:
    client.stage.plane.cancel(CancelRequest(client.session.pid, client.session.key))


def value_set(request: bytes, name: str) -> str | None:
    """What a change of state sets `name` to; None if it does not name it."""
    at = request.find(name.encode())
    if at < 0:
        return None
    at += len(name)
    length = int.from_bytes(request[at : at + 4], "big", signed=True)
    return request[at + 4 : at + 4 + length].decode() if length >= 0 else ""


def taken(server: Transport, client: Client, query: bytes = ONE) -> None:
    """The server takes the client's state and answers its one query."""
    asked = server.take()
    server.say(settings_taken())
    assert (asked + server.take()).endswith(query)
    server.say(done())
    assert client.kinds() == "CZ"


# --- the state goes first ---------------------------------------------------------------------------


def test_the_tenant_is_set_and_confirmed_before_the_first_request_is_sent(stage: Stage) -> None:
    client = stage.client()
    client.says(ONE)
    stage.pools.step()
    server = stage.server()
    asked = server.take()
    assert ONE not in asked
    assert value_set(asked, "app.tenant_id") == "acme"
    server.say(settings_taken()[:-3])
    assert server.take() == b""
    server.say(settings_taken()[-3:])
    assert server.take() == ONE
    server.say(done())
    assert client.kinds() == "CZ", "nothing of the change is told"
    stage.leave()


def test_a_connection_of_another_tenant_is_changed_and_that_confirmed_first(stage: Stage) -> None:
    stage.unlinked("acme")
    server = stage.server()
    client = stage.client("beta")
    client.says(CREATE)
    asked = server.take()
    assert value_set(asked, "app.tenant_id") == "beta"
    assert CREATE not in asked
    server.say(settings_taken())
    assert server.take() == CREATE
    stage.leave()


def test_between_two_tenants_it_is_confirmed_every_time(stage: Stage) -> None:
    stage.unlinked("acme")
    server = stage.server()
    clients = [stage.client("beta"), stage.client("acme")]
    for client in clients * 3:
        client.says(CREATE)
        taken(server, client, CREATE)
    stage.leave()


def test_the_same_state_again_costs_nothing(stage: Stage) -> None:
    client, server = stage.unlinked()
    twin = stage.client()
    for each in (client, twin):
        each.says(ONE)
        assert server.take() == ONE
        server.say(done())
    stage.leave()


def test_a_state_that_the_pool_has_seen_goes_ahead_in_the_same_write(stage: Stage) -> None:
    a, server = stage.unlinked(application_name="a")
    b = stage.client(application_name="b")
    b.says(ONE)
    server.take()
    server.say(settings_taken(("application_name", "b")))
    server.take()
    server.say(done())
    assert b.kinds() == "CZ"
    a.says(ONE)
    asked = server.take()
    assert value_set(asked, "application_name") == "a"
    assert asked.endswith(ONE)
    server.say(settings_taken(("application_name", "a")), done())
    assert a.kinds() == "CZ"
    stage.leave()


def test_not_from_a_connection_whose_timeout_could_cut_the_change_short(stage: Stage) -> None:
    a, server = stage.unlinked()
    b = stage.client(statement_timeout="1ms")
    b.says(ONE)
    taken(server, b)
    a.says(ONE)
    assert ONE not in server.take()
    server.say(settings_taken())
    assert server.take() == ONE
    stage.leave()


def test_a_parameter_that_only_the_one_before_had_is_taken_back(stage: Stage) -> None:
    _a, server = stage.unlinked(application_name="a")
    b = stage.client()
    b.says(ONE)
    asked = server.take()
    assert value_set(asked, "application_name") == ""
    stage.leave()


def test_who_waits_takes_the_state_when_it_is_its_turn(stage: Stage) -> None:
    first, server = stage.linked()
    client = stage.client("beta")
    client.says(ONE)
    client.says(TWO)
    first.says(COMMIT)
    server.take()
    server.say(done("COMMIT"))
    assert value_set(server.take(), "app.tenant_id") == "beta"
    server.say(settings_taken())
    assert server.take() == ONE + TWO
    stage.leave()


def test_what_comes_while_the_state_is_taken_waits_behind_the_rest(stage: Stage) -> None:
    client = stage.client()
    client.says(ONE)
    stage.pools.step()
    server = stage.server()
    server.take()
    client.says(TWO)
    assert server.take() == b""
    server.say(settings_taken())
    assert server.take() == ONE + TWO
    stage.leave()


# --- the state is refused ---------------------------------------------------------------------------


def test_a_connection_that_refuses_the_state_is_dropped_and_the_request_gets_its_error(stage: Stage) -> None:
    client = stage.client()
    client.says(ONE)
    stage.pools.step()
    server = stage.server()
    server.say(REFUSED, encode.ready_for_query())
    assert server.aborted
    assert ONE not in server.take()
    said = client.reads()
    assert kinds(said) == "EZ"
    assert sqlstates(said) == ["57014"]
    assert client.state is SessionState.IDLE
    stage.network.hang_ups()
    stage.leave()


def test_the_session_goes_on_with_another_connection(stage: Stage) -> None:
    client = stage.client()
    client.says(ONE, TWO)
    stage.pools.step()
    stage.server().say(REFUSED, encode.ready_for_query())
    stage.network.hang_ups()
    stage.pools.step()
    server = stage.server(1)
    server.take()
    server.say(settings_taken())
    assert server.take() == TWO
    server.say(done())
    assert client.kinds() == "EZCZ"
    stage.leave()


def test_a_refusal_behind_which_the_request_was_sent_answers_it_too(stage: Stage) -> None:
    a, server = stage.unlinked(application_name="a")
    b = stage.client(application_name="b")
    b.says(ONE)
    server.take()
    server.say(settings_taken(("application_name", "b")))
    server.take()
    server.say(done())
    a.says(ONE, TWO, encode.parse(b"", b"SELECT 3"))
    server.say(REFUSED, encode.ready_for_query())
    assert server.aborted
    assert a.kinds() == "EZEZE", "each its error; the batch is skipped to its Sync"
    a.says(encode.bind(b"", b"", []), encode.SYNC)
    assert a.kinds() == "Z"
    stage.network.hang_ups()
    stage.leave()


def test_a_fatal_refusal_of_a_login_is_an_error_of_the_session(stage: Stage) -> None:
    frame = encode.error("too many clients", "53300", severity="FATAL")
    stage.network.refusal = ServerRefused("too many clients", "53300", frame)
    client = stage.client()
    client.says(ONE)
    stage.pools.step()
    said = client.reads()
    assert kinds(said) == "EZ"
    assert b"SERROR\0VERROR\0" in said[0].body
    assert client.state is SessionState.IDLE
    stage.leave()


def test_a_server_that_cannot_be_reached_is_told_as_57p03_and_at_once_the_next_time(stage: Stage) -> None:
    stage.network.refusal = ServerLost("the server cannot be reached")
    client = stage.client()
    client.says(ONE)
    stage.pools.step()
    assert sqlstates(client.reads()) == [NoHealthyEndpoint.sqlstate]
    client.says(ONE)
    assert sqlstates(client.reads()) == [NoHealthyEndpoint.sqlstate]
    assert len(stage.network.logins) == 1
    stage.leave()


# --- cancels while the state is taken ---------------------------------------------------------------


def test_a_cancel_does_not_strike_the_change_of_state(stage: Stage) -> None:
    client = stage.client()
    client.says(ONE)
    stage.pools.step()
    cancel(client)
    stage.pools.step()
    assert stage.network.cancels == []
    stage.leave()


def test_a_cancel_during_the_change_answers_the_request_and_only_that(stage: Stage) -> None:
    client = stage.client()
    client.says(ONE)
    stage.pools.step()
    server = stage.server()
    server.take()
    cancel(client)
    server.say(settings_taken())
    assert server.take() == b"", "the request was cancelled before it was sent"
    assert sqlstates(client.reads()) == ["57014"]
    client.says(TWO)
    assert server.take() == TWO
    server.say(done())
    assert client.kinds() == "CZ"
    stage.leave()


def test_the_connection_of_a_request_that_was_cancelled_then_goes_to_who_waits(stage: Stage) -> None:
    client = stage.client()
    client.says(ONE)
    stage.pools.step()
    other = stage.client()
    other.says(TWO)
    server = stage.server()
    server.take()
    cancel(client)
    server.say(settings_taken())
    assert server.take() == TWO
    server.say(done())
    assert other.kinds() == "CZ"
    stage.leave()


def test_a_cancel_during_a_change_that_fails_does_not_strike_later(stage: Stage) -> None:
    client = stage.client()
    client.says(ONE)
    stage.pools.step()
    cancel(client)
    stage.server().say(REFUSED, encode.ready_for_query())
    stage.network.hang_ups()
    assert client.kinds() == "EZ"
    client.says(TWO)
    stage.pools.step()
    server = stage.server(1)
    server.take()
    server.say(settings_taken())
    assert server.take() == TWO
    server.say(done())
    assert client.kinds() == "CZ"
    stage.leave()


def test_a_cancel_of_a_request_sent_behind_the_change_is_sent_when_that_is_over(stage: Stage) -> None:
    a, server = stage.unlinked(application_name="a")
    b = stage.client(application_name="b")
    b.says(ONE)
    server.take()
    server.say(settings_taken(("application_name", "b")))
    server.take()
    server.say(done())
    a.says(ONE)
    cancel(a)
    stage.pools.step()
    assert stage.network.cancels == []
    server.say(settings_taken(("application_name", "a")))
    stage.pools.step()
    assert stage.network.cancels == [101]
    stage.leave()


# --- temporary tables from the start ----------------------------------------------------------------


def test_a_session_whose_search_path_makes_temporary_tables_is_pinned_and_reset(stage: Stage) -> None:
    client = stage.client(search_path="pg_temp")
    client.says(ONE)
    stage.pools.step()
    server = stage.server()
    taken(server, client)
    assert client.state is SessionState.PINNED
    client.says(encode.TERMINATE)
    assert server.take() == encode.query(b"DISCARD ALL")
    stage.leave()


@pytest.mark.parametrize("way", ["refused", "cancelled"])
def test_such_a_session_is_pinned_to_the_connection_it_gets_in_the_end(stage: Stage, way: str) -> None:
    client = stage.client(search_path="pg_temp")
    client.says(ONE)
    stage.pools.step()
    server = stage.server()
    server.take()
    if way == "refused":
        server.say(REFUSED, encode.ready_for_query())
        stage.network.hang_ups()
    else:
        cancel(client)
        server.say(settings_taken())
        if server.take():
            server.say(done("DISCARD ALL"))
    assert client.kinds() == "EZ"
    client.says(ONE)
    stage.pools.step()
    server = stage.network.servers[-1]
    taken(server, client)
    assert client.state is SessionState.PINNED
    client.says(encode.TERMINATE)
    assert server.take() == encode.query(b"DISCARD ALL")
    stage.leave()


# --- what the client is told ------------------------------------------------------------------------


def test_a_parameter_that_this_server_reports_otherwise_is_told(stage: Stage) -> None:
    client = stage.client()
    stage.network.reported = {**stage.network.reported, "server_version": "18.1"}
    client.says(ONE)
    stage.pools.step()
    server = stage.server()
    server.take()
    server.say(settings_taken())
    said = client.reads()
    assert [(frame.kind, frame.body) for frame in said] == [("S", b"server_version\x0018.1\0")]
    server.say(done())
    client.says(ONE)
    server.say(done())
    assert client.kinds() == "CZCZ", "and only once"
    stage.leave()


def test_what_the_client_sets_is_told_and_follows_it_to_the_next_server(stage: Stage) -> None:
    client, server = stage.unlinked()
    other = stage.client()
    client.says(encode.query(b"SET application_name = 'mine'"))
    server.say(
        encode.command_complete("SET"),
        encode.parameter_status(b"application_name", b"mine"),
        encode.ready_for_query(),
    )
    assert client.kinds() == "CSZ"
    server.take()
    other.says(ONE)
    assert value_set(server.take(), "application_name") == ""
    server.say(settings_taken(("application_name", "")), done())
    assert other.kinds() == "CZ"
    client.says(ONE)
    assert value_set(server.take(), "application_name") == "mine"
    stage.leave()


def test_what_a_rollback_takes_back_does_not_follow(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(encode.query(b"SET TimeZone = 'Asia/Tokyo'"))
    server.say(
        encode.command_complete("SET"),
        encode.parameter_status(b"TimeZone", b"Asia/Tokyo"),
        encode.ready_for_query(b"T"),
    )
    client.says(encode.query(b"ROLLBACK"))
    server.say(
        encode.command_complete("ROLLBACK"),
        encode.parameter_status(b"TimeZone", b"UTC"),
        encode.ready_for_query(),
    )
    assert client.kinds() == "CSZCSZ"
    server.take()
    other = stage.client()
    other.says(ONE)
    assert b"timezone" not in server.take()
    stage.leave()


# --- the registry changes ---------------------------------------------------------------------------


def test_a_suspended_tenants_session_ends_at_its_next_transaction(stage: Stage) -> None:
    client, server = stage.linked()
    stage.registry.disable("tenant", "acme")
    client.says(ONE)
    server.say(done(status=b"T"))
    assert client.kinds() == "CZ"
    client.says(COMMIT)
    server.say(done("COMMIT"))
    client.says(ONE)
    said = client.reads()
    assert kinds(said) == "CZE"
    assert sqlstates(said) == ["57P01"]
    assert client.transport.closed
    stage.leave()


def test_a_pinned_session_follows_between_its_transactions(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.query(b"LISTEN x"))
    server.say(done("LISTEN"))
    server.say(inquired(left="t"))
    assert client.state is SessionState.PINNED
    stage.registry.disable("tenant", "acme")
    client.says(ONE)
    server.say(done())
    assert sqlstates(client.reads()) == ["57P01"]
    stage.leave()


# --- pins -------------------------------------------------------------------------------------------


def test_a_pinned_session_keeps_its_connection_until_discard_all(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.query(b"LISTEN x"))
    server.say(done("LISTEN"))
    server.say(inquired(left="t"))
    assert client.state is SessionState.PINNED
    assert not stage.pool.idle
    client.says(encode.query(b"DISCARD ALL"))
    assert server.take().endswith(encode.query(b"DISCARD ALL"))
    server.say(done("DISCARD ALL"))
    assert value_set(server.take(), "app.tenant_id") == "acme", "the state is set again right behind it"
    server.say(settings_taken())
    assert client.state is SessionState.IDLE
    assert len(stage.pool.idle) == 1
    client.says(ONE)
    assert server.take() == ONE
    stage.leave()


def test_what_is_asked_behind_discard_all_keeps_the_pin(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.query(b"LISTEN x"))
    server.say(done("LISTEN"))
    server.say(inquired(left="t"))
    client.says(encode.query(b"DISCARD ALL"), encode.query(b"LISTEN y"))
    server.say(done("DISCARD ALL"))
    server.say(settings_taken(), done("LISTEN"))
    server.say(inquired(left="t"))
    assert client.state is SessionState.PINNED
    server.take()
    client.says(encode.TERMINATE)
    assert server.take().endswith(encode.query(b"DISCARD ALL"))
    stage.leave()


def test_a_notification_reaches_the_pinned_listener_though_an_answer_of_ours_is_due(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.query(b"LISTEN x"))
    server.say(done("LISTEN"))
    server.say(inquired(left="t"))
    client.reads()
    client.says(encode.query(b"RESET ALL"))
    notification = encode.frame(b"A", b"\0\0\0\1x\0\0")
    server.say(done("RESET"), settings_again()[: -len(encode.ready_for_query())])
    server.say(notification, encode.ready_for_query())
    assert client.kinds() == "CZA"
    stage.leave()


def test_a_client_knows_its_own_notifications_by_the_process_id_that_it_was_told(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.query(b"LISTEN x"))
    server.say(done("LISTEN"))
    server.say(inquired(left="t"))
    client.reads()
    assert client.session.server is not None
    own, told = client.session.server.pid, client.session.pid
    assert own != told
    chunk = b"".join(notification(pid) for pid in (own, own + 1))
    heard = [Frame("A", notification(pid)[5:]) for pid in (told, own + 1)]
    server.say(chunk)
    assert client.reads() == heard
    for piece in chunk:
        server.say(bytes([piece]))
    assert client.reads() == heard
    for asked, answer in (
        (encode.query(b"NOTIFY x"), encode.command_complete("NOTIFY")),
        (
            encode.parse(b"", b"NOTIFY x") + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC,
            encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("NOTIFY"),
        ),
    ):
        client.says(asked)
        server.say(answer, chunk[:7])
        server.say(chunk[7:], encode.ready_for_query())
        assert [frame for frame in client.reads() if frame.kind not in "12C"] == [*heard, Frame("Z", b"I")]
    stage.leave()


def notification(pid: int) -> bytes:
    return encode.frame(b"A", pid.to_bytes(4, "big") + b"x\0hello\0")


def test_a_pin_is_told_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, client_options=ClientOptions(pin_notice=True))
    client, server = stage.unlinked()
    client.says(encode.query(b"LISTEN x"))
    server.say(done("LISTEN"))
    server.say(inquired(left="t"))
    assert client.kinds() == "NCZ"
    assert stage.process.pins == {"listen": 1}
    stage.leave()


# --- requests that wait for answers -----------------------------------------------------------------


def waiting(stage: Stage) -> tuple[Client, Transport]:
    """A client whose state goes ahead of a Parse, and whose next batch waits for what becomes of that."""
    client, server = stage.unlinked(application_name="one")
    other, _ = stage.unlinked(application_name="two")
    server = stage.server()
    assert other.session.state_needed in client.session.pool.accepted
    server.take()
    client.says(encode.parse(b"s", b"SELECT 1") + encode.SYNC + encode.bind(b"", b"s", []) + encode.SYNC)
    asked = server.take()
    assert value_set(asked, "application_name") == "one"
    assert b"SELECT 1" in asked
    assert client.session.held_back
    return client, server


def test_what_waits_is_answered_although_the_state_was_refused(stage: Stage) -> None:
    client, server = waiting(stage)
    server.say(encode.error("no", "22023"), encode.ready_for_query())
    assert client.kinds() == "EZEZ"
    assert server.closed
    assert client.state is SessionState.IDLE
    stage.leave()


def test_a_client_that_goes_meanwhile_takes_what_waits_with_it(stage: Stage) -> None:
    client, server = waiting(stage)
    client.transport.hang_up()
    assert encode.bind(b"", b"s", []) not in server.take()
    stage.leave()


def test_a_server_that_goes_meanwhile_ends_the_session(stage: Stage) -> None:
    client, server = waiting(stage)
    server.hang_up()
    assert client.kinds() == "E"
    assert client.state is SessionState.CLOSED
    stage.leave()


def test_what_waits_goes_on_when_all_is_answered(stage: Stage) -> None:
    client, server = waiting(stage)
    client.says(encode.query(b"SELECT 2"))
    server.say(settings_taken(), encode.PARSE_COMPLETE)
    assert b"SELECT 2" not in server.take()
    server.say(encode.ready_for_query())
    assert server.take().endswith(encode.SYNC + encode.query(b"SELECT 2"))
    stage.leave()


def test_a_cancel_while_a_request_waits_is_for_what_it_waits_for(stage: Stage) -> None:
    client, server = waiting(stage)
    server.say(settings_taken(("application_name", "one")))
    client.session.cancel()
    stage.pools.step()
    assert len(stage.network.cancels) == 1
    server.say(encode.error("canceled", "57014"), encode.ready_for_query())
    stage.pools.step()
    assert client.kinds() == "EZ"
    assert server.take().endswith(encode.SYNC), "the next batch is sent: it fails by itself"
    stage.leave()
