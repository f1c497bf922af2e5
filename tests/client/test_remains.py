"""What a transaction leaves is asked of the server: parameters then follow the session, and pins end."""

from __future__ import annotations

import pytest

from proxy.model import PinReason
from proxy.protocol.lifecycle import SessionState
from proxy.wire import encode
from tests.client.stage import Client, Stage, done, frames, inquired, settings_taken
from tests.client.test_linking import cancel, value_set
from tests.rawclient import kinds, sqlstates
from tests.transports import Transport

ONE = encode.query(b"SELECT 1")
CALL = encode.frame(b"F", b"\0\0\0\1" + bytes(6))  # follows no change that is not confirmed yet
SET = b"SET work_mem = '5MB'"


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """One server connection for everybody."""
    stage = Stage(monkeypatch)
    stage.pools.servers.limit = 1
    return stage


def does(client: Client, server: Transport, text: bytes, *answer: bytes) -> bytes:
    """Says a statement, which is answered; what the server is asked behind it."""
    client.says(encode.query(text))
    server.take()
    server.say(*(answer or (done(),)))
    assert client.reads()[-1].kind == "Z"
    return server.take()


def names(asked: bytes) -> list[str]:
    """The parameters that are asked for, without their sources."""
    bound = [body for kind, body in frames(asked) if kind == "B"]
    if not bound or b"current_setting" not in asked:
        return []
    rest = bound[0][len(b"\0tiergate_inquiry\0") :]
    found = []
    at = 4
    for _ in range(int.from_bytes(rest[2:4], "big")):
        length = int.from_bytes(rest[at : at + 4], "big")
        found.append(rest[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return found


def asks_for_sources(asked: bytes) -> bool:
    return b"pg_settings" in asked


def carries(client: Client) -> dict[str, str]:
    startup = client.session.startup.parameters
    return {n: v for n, v in client.session.state_needed.parameters.items() if startup.get(n) != v}


# --- parameters -------------------------------------------------------------------------------------


def test_a_session_that_sets_nothing_asks_nothing(stage: Stage) -> None:
    client, server = stage.unlinked()
    for text in (
        b"SELECT 1",
        b"SET LOCAL work_mem = '1MB'",
        b"SET TimeZone = 'CET'",
        b"RESET work_mem",
        b"DROP TABLE t",
    ):
        assert does(client, server, text) == b""
        assert client.session.doubts is None
    stage.leave()


@pytest.mark.parametrize("way", ["simple", "extended", "named", "bound"])
def test_what_is_set_is_asked_for_and_follows(stage: Stage, way: str) -> None:
    client, server = stage.unlinked("big")
    if way == "simple":
        asked = does(client, server, SET)
    else:
        name = b"s" if way == "named" else b""
        text = b"SELECT set_config($1, $2, false)" if way == "bound" else SET
        values: list[bytes | None] = [b"Work_Mem", b"5MB"] if way == "bound" else []
        client.says(
            encode.parse(name, text) + encode.bind(b"", name, values) + encode.execute() + encode.SYNC
        )
        server.take()
        server.say(encode.PARSE_COMPLETE + encode.BIND_COMPLETE + done("SET"))
        assert client.kinds() == "12CZ"
        asked = server.take()
    assert names(asked) == ["work_mem"]
    assert not asks_for_sources(asked), "it was a transaction of its own, which has not failed"
    assert client.state is SessionState.LINKED
    server.say(inquired("5MB"))
    assert client.state is SessionState.IDLE
    assert client.reads() == []
    assert carries(client) == {"work_mem": "5MB"}
    assert client.session.pins == set()
    client.says(ONE)
    assert server.take() == ONE, "the connection has it already"
    server.say(done())
    other = stage.client("big")
    other.says(ONE)
    assert value_set(server.take(), "work_mem") == "", "another does not get it"
    stage.leave()


def test_it_is_set_where_it_is_not_yet(stage: Stage) -> None:
    client, server = stage.unlinked()
    does(client, server, SET)
    server.say(inquired("5MB"))
    other = stage.client()
    other.says(ONE)
    server.take()
    server.say(settings_taken(), done())
    client.says(ONE)
    asked = server.take()
    assert value_set(asked, "work_mem") == "5MB"
    assert asked.endswith(ONE), "a connection has had this state before"
    stage.leave()


def test_what_the_client_asks_meanwhile_waits_and_is_lent_a_connection_as_any(stage: Stage) -> None:
    client, server = stage.unlinked()
    other = stage.client()
    does(client, server, SET)
    other.says(encode.query(b"SELECT 2"))
    client.says(ONE)
    assert server.take() == b""
    server.say(inquired("5MB"))
    asked = server.take()
    assert b"SELECT 2" in asked or value_set(asked, "work_mem") == "", "who has waited comes first"
    assert ONE not in asked
    assert client.state is SessionState.WAITING
    server.say(settings_taken(), done())
    assert other.kinds() == "CZ"
    assert server.take().endswith(ONE)
    stage.leave()


@pytest.mark.parametrize("told", [("5MB", True), ("4MB", False)], ids=["kept", "rolled back"])
def test_where_it_may_have_been_rolled_back_its_source_is_asked_too(
    stage: Stage, told: tuple[str, bool]
) -> None:
    client, server = stage.linked()
    value, kept = told
    assert does(client, server, SET, done("SET", b"T")) == b"", "not within the transaction"
    asked = does(client, server, b"COMMIT", done("COMMIT"))
    assert names(asked) == ["work_mem"]
    assert asks_for_sources(asked)
    server.say(inquired(value, in_session="work_mem" if kept else ""))
    assert carries(client) == ({"work_mem": "5MB"} if kept else {})
    assert client.state is SessionState.IDLE
    stage.leave()


@pytest.mark.parametrize("text", [b"SELECT 1; SET work_mem = '5MB'", b"SET work_mem = '5MB'"])
def test_and_where_it_may_have_failed(stage: Stage, text: bytes) -> None:
    client, server = stage.unlinked()
    client.says(encode.query(text))
    server.take()
    if text.startswith(b"SET"):
        server.say(encode.error("no", "22023"))
    server.say(done())
    assert asks_for_sources(server.take())
    server.say(inquired("4MB", in_session=""))
    assert carries(client) == {}
    stage.leave()


def carrying(stage: Stage, tenant: str = "acme", **parameters: str) -> tuple[Client, Transport]:
    client, server = stage.unlinked(tenant, **parameters)
    does(client, server, SET)
    server.say(inquired("5MB"))
    assert carries(client) == {"work_mem": "5MB"}
    return client, server


def test_what_is_carried_already_needs_no_source(stage: Stage) -> None:
    client, server = carrying(stage)
    client.says(encode.query(b"BEGIN; SET work_mem = '6MB'; ROLLBACK"))
    server.take()
    server.say(done())
    asked = server.take()
    assert names(asked) == ["work_mem"]
    assert not asks_for_sources(asked)
    server.say(inquired("5MB"))
    assert carries(client) == {"work_mem": "5MB"}
    stage.leave()


@pytest.mark.parametrize("text", [b"RESET work_mem", b"SET work_mem TO DEFAULT", b"RESET ALL"])
def test_what_is_reset_is_carried_no_longer(stage: Stage, text: bytes) -> None:
    client, server = carrying(stage, "big")
    client.says(encode.query(text))
    sent = server.take()
    server.say(done("RESET"))
    if text == b"RESET ALL":
        assert value_set(sent, "app.tenant_id") == "big"
        server.say(
            encode.CLOSE_COMPLETE + settings_taken()[:-6] + encode.CLOSE_COMPLETE + encode.ready_for_query()
        )
    asked = server.take()
    assert "work_mem" in names(asked)
    server.say(inquired(*("big" if name == "app.tenant_id" else "4MB" for name in names(asked))))
    assert carries(client) == {}
    client.says(ONE)
    assert server.take() == ONE
    stage.leave()


def test_a_reset_that_was_rolled_back_has_reset_nothing(stage: Stage) -> None:
    client, server = carrying(stage)
    does(client, server, b"BEGIN; RESET work_mem; ROLLBACK")
    server.say(inquired("5MB"))
    assert carries(client) == {"work_mem": "5MB"}
    stage.leave()


def test_what_was_set_and_reset_is_asked_for_its_source(stage: Stage) -> None:
    client, server = carrying(stage)
    assert asks_for_sources(does(client, server, b"SET work_mem = '6MB'; RESET work_mem"))
    server.say(inquired("4MB", in_session=""))
    assert carries(client) == {}
    stage.leave()


def test_a_startup_value_is_the_sessions_whatever_it_is(stage: Stage) -> None:
    client, server = stage.unlinked(work_mem="8MB")
    does(client, server, b"BEGIN; SET work_mem = '6MB'; COMMIT")
    server.say(inquired("6MB"))
    assert client.session.state_needed.parameters["work_mem"] == "6MB"
    client.says(encode.query(b"RESET work_mem"))
    assert value_set(server.take()[30:], "work_mem") == "8MB"
    server.say(done("RESET"))
    server.say(
        encode.CLOSE_COMPLETE + settings_taken()[:-6] + encode.CLOSE_COMPLETE + encode.ready_for_query()
    )
    assert names(server.take()) == ["work_mem"]
    server.say(inquired("8MB"))
    assert client.session.state_needed is client.session.startup
    stage.leave()


def test_a_name_of_the_applications_own_stays_known(stage: Stage) -> None:
    """As on a connection of its own, where it is empty after a RESET, and no error."""
    client, server = stage.unlinked()
    assert names(does(client, server, b"BEGIN; SET own.name = 'x'; ROLLBACK")) == ["own.name"]
    server.say(inquired(""))
    assert carries(client) == {"own.name": ""}
    assert names(does(client, server, b"RESET own.other")) == ["own.other"]
    server.say(inquired(""))
    assert carries(client) == {"own.name": "", "own.other": ""}
    stage.leave()


def test_a_name_that_no_server_knows_is_not_carried(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.query(b"SET nonsense = 1"))
    server.take()
    server.say(encode.error("no", "42704"), encode.ready_for_query())
    server.say(inquired(None, in_session=""))
    assert carries(client) == {}
    stage.leave()


def test_the_tenant_is_not_learned_on_a_shared_cluster(stage: Stage) -> None:
    client, server = carrying(stage)
    client.says(encode.query(b"RESET ALL"))
    server.take()
    server.say(done("RESET"))
    server.say(
        encode.CLOSE_COMPLETE + settings_taken()[:-6] + encode.CLOSE_COMPLETE + encode.ready_for_query()
    )
    assert names(server.take()) == ["work_mem"]
    server.say(inquired("4MB"))
    stage.leave()


def test_a_role_is_carried_and_confirmed_first(stage: Stage) -> None:
    """It may be gone by now; nothing may run without it, or with more rights than the client believes to have."""
    client, server = stage.unlinked()
    assert names(does(client, server, b"SET ROLE reader")) == ["role"]
    server.say(inquired("reader"))
    assert carries(client) == {"role": "reader"}
    other = stage.client()
    other.says(ONE)
    asked = server.take()
    assert value_set(asked, "role") == ""
    server.say(settings_taken(), done())
    client.says(CALL)
    asked = server.take()
    assert value_set(asked, "role") == "reader"
    assert CALL not in asked
    server.say(encode.error("no such role", "22023"), encode.ready_for_query())
    said = client.reads()
    assert kinds(said) == "EZ"
    assert sqlstates(said) == ["22023"]
    assert server.closed
    stage.leave()


@pytest.mark.parametrize("text", [b"RESET ROLE", b"SET ROLE NONE", b"BEGIN; SET ROLE other; ROLLBACK"])
def test_no_role_is_not_carried(stage: Stage, text: bytes) -> None:
    client, server = stage.unlinked()
    does(client, server, b"SET ROLE reader")
    server.say(inquired("reader"))
    assert names(does(client, server, text)) == ["role"]
    server.say(inquired("none"))
    assert carries(client) == {}
    stage.leave()


def test_where_names_are_not_mapped_a_statement_is_asked_for_when_it_is_executed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, max_prepared_statements=0)
    client, server = stage.unlinked()
    client.says(encode.parse(b"s", SET) + encode.SYNC)
    server.take()
    server.say(encode.PARSE_COMPLETE + encode.ready_for_query())
    server.take()
    server.say(inquired("4MB"))
    assert client.session.pins == {PinReason.SQL_PREPARE}
    client.says(encode.bind(b"", b"s", []) + encode.execute() + encode.SYNC)
    server.take()
    server.say(encode.BIND_COMPLETE + done("SET"))
    assert names(server.take()) == ["work_mem"]
    server.say(inquired("5MB"))
    stage.leave()


# --- what cannot follow -----------------------------------------------------------------------------


def test_a_computed_name_pins(stage: Stage) -> None:
    client, server = stage.unlinked("big")
    does(client, server, b"SELECT set_config('work' || '_mem', '5MB', false)")
    assert client.session.pins == {PinReason.SET}
    stage.leave()


def test_a_bound_name_that_is_not_there_pins(stage: Stage) -> None:
    client, server = stage.unlinked("big")
    text = b"PREPARE p AS SELECT set_config($1, $2, false)"
    client.says(encode.parse(b"", text) + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC)
    assert PinReason.SET in client.session.pins
    server.take()
    stage.leave()


def test_bound_names_of_paths_and_users_pin_as_others_do(stage: Stage) -> None:
    for name, reason in ((b"search_path", PinReason.TEMP_TABLE), (b"session_authorization", PinReason.ROLE)):
        client, server = stage.unlinked("big")
        text = b"SELECT set_config($1, $2, false)"
        client.says(
            encode.parse(b"", text) + encode.bind(b"", b"", [name, b"x"]) + encode.execute() + encode.SYNC
        )
        assert client.session.pins == {reason}
        server.take()
        stage.leave()


def test_a_value_too_long_to_be_carried_pins_for_good(stage: Stage) -> None:
    client, server = stage.unlinked()
    does(client, server, b"SET own.name = 'long'")
    server.say(inquired("x" * 100_000))
    assert client.session.pins == {PinReason.SET}
    assert carries(client) == {}
    assert does(client, server, b"SELECT 1") == b"", "and is not asked for again"
    stage.leave()


def test_a_session_that_cannot_be_asked_is_pinned_until_it_can(stage: Stage) -> None:
    """For example since it has set a timeout that strikes the question too."""
    client, server = stage.unlinked()
    does(client, server, b"SET statement_timeout = 1")
    for times in range(1, 5):
        server.say(encode.error("canceled", "57014"), encode.ready_for_query())
        assert client.reads() == []
        assert client.session.pins == {PinReason.SET}
        assert client.state is SessionState.PINNED
        asked = server.take()
        assert names(asked) == (["statement_timeout"] if times < 4 else [])
    asked = does(client, server, b"RESET statement_timeout")
    assert names(asked) == ["statement_timeout"]
    assert asks_for_sources(asked)
    server.say(inquired("0", in_session=""))
    assert client.session.pins == set()
    assert client.state is SessionState.IDLE
    assert carries(client) == {}
    stage.leave()


def test_a_question_that_somebody_has_cancelled_is_asked_again(stage: Stage) -> None:
    client, server = stage.unlinked()
    does(client, server, SET)
    server.say(encode.error("canceled", "57014"), encode.ready_for_query())
    assert names(server.take()) == ["work_mem"]
    server.say(inquired("5MB", in_session="work_mem"))
    assert client.reads() == []
    assert client.session.pins == set()
    assert client.state is SessionState.IDLE
    assert carries(client) == {"work_mem": "5MB"}
    stage.leave()


def test_a_connection_of_which_it_is_not_known_what_it_has_is_reset(stage: Stage) -> None:
    client, server = stage.linked()
    does(client, server, SET, done("SET", b"T"))
    client.transport.hang_up()
    assert server.take() == encode.query(b"ROLLBACK")
    server.say(done("ROLLBACK"))
    assert server.take() == encode.query(b"DISCARD ALL")
    stage.leave()


# --- while it is asked ------------------------------------------------------------------------------


def test_a_client_that_goes_leaves_a_connection_that_is_known(stage: Stage) -> None:
    client, server = stage.unlinked()
    does(client, server, SET)
    client.transport.hang_up()
    assert client.state is not SessionState.CLOSED
    server.say(inquired("5MB"))
    assert client.state is SessionState.CLOSED
    (kept,) = stage.pool.idle
    assert kept.values.parameters["work_mem"] == "5MB"
    assert server.take() == b""
    stage.leave()


@pytest.mark.parametrize("goodbye", [b"", encode.TERMINATE])
def test_what_it_asked_before_it_went_is_still_done(stage: Stage, goodbye: bytes) -> None:
    client, server = stage.unlinked()
    does(client, server, SET)
    client.says(encode.query(b"INSERT INTO t VALUES (1)") + goodbye)
    client.transport.hang_up()
    server.say(inquired("5MB"))
    assert server.take() == encode.query(b"INSERT INTO t VALUES (1)")
    server.say(done("INSERT 0 1"))
    assert client.state is SessionState.CLOSED
    assert len(stage.pool.idle) == 1
    stage.leave()


def test_a_goodbye_waits_for_the_answer(stage: Stage) -> None:
    client, server = stage.unlinked()
    does(client, server, SET)
    client.says(encode.TERMINATE)
    server.say(inquired("5MB"))
    assert client.state is SessionState.CLOSED
    assert len(stage.pool.idle) == 1
    stage.leave()


def test_a_cancel_does_not_strike_the_question(stage: Stage) -> None:
    client, server = stage.unlinked()
    does(client, server, SET)
    cancel(client)
    server.say(inquired("5MB"))
    stage.pools.step()
    assert stage.network.cancels == []
    client.says(ONE)
    assert server.take() == ONE
    server.say(done())
    assert client.kinds() == "CZ", "nothing was asked that it could have been for"
    stage.leave()


def test_but_what_waits_behind_it(stage: Stage) -> None:
    client, server = stage.unlinked()
    does(client, server, SET)
    client.says(ONE)
    cancel(client)
    server.say(inquired("5MB"))
    assert server.take() == ONE
    stage.pools.step()
    assert len(stage.network.cancels) == 1
    stage.leave()


def test_a_server_that_goes_ends_the_session(stage: Stage) -> None:
    client, server = stage.unlinked()
    does(client, server, SET)
    server.hang_up()
    assert client.kinds() == "E"
    assert client.state is SessionState.CLOSED
    stage.leave()


def test_a_draining_proxy_hears_the_answer_first(stage: Stage) -> None:
    client, server = stage.unlinked()
    does(client, server, SET)
    stage.plane.draining = True
    server.say(inquired("5MB"))
    assert sqlstates(client.reads()) == ["57P01"]
    assert server.take() == b""
    stage.plane.draining = False
    stage.leave()


# --- pins that end ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begins", "ends", "reason"),
    [
        (b"LISTEN x", b"UNLISTEN *", PinReason.LISTEN),
        (b"CREATE TEMP TABLE t (a int)", b"DROP TABLE t", PinReason.TEMP_TABLE),
        (b"CREATE TEMP TABLE t (a int)", b"DISCARD TEMP", PinReason.TEMP_TABLE),
        (b"SELECT pg_advisory_lock(1)", b"SELECT pg_advisory_unlock(1)", PinReason.ADVISORY_LOCK),
        (b"DECLARE c CURSOR WITH HOLD FOR SELECT 1", b"CLOSE c", PinReason.HOLD_CURSOR),
    ],
)
@pytest.mark.parametrize("way", ["simple", "extended"])
def test_a_pin_ends_with_its_cause(
    stage: Stage, begins: bytes, ends: bytes, reason: PinReason, way: str
) -> None:
    client, server = stage.unlinked()
    assert b"EXISTS" in does(client, server, begins), "it may have failed"
    server.say(inquired(left="t"))
    assert client.session.pins == {reason}
    assert does(client, server, b"SELECT 1") == b"", "nothing that could end it"
    if way == "simple":
        asked = does(client, server, ends)
    else:
        client.says(encode.parse(b"s", ends) + encode.bind(b"", b"s", []) + encode.execute() + encode.SYNC)
        server.take()
        server.say(encode.PARSE_COMPLETE + encode.BIND_COMPLETE + done())
        asked = server.take()
    assert b"EXISTS" in asked
    server.say(inquired(left="f"))
    assert client.session.pins == set()
    assert client.state is SessionState.IDLE
    assert server.take() == b"", "and the connection needs no reset"
    assert len(stage.pool.idle) == 1
    stage.leave()


def test_each_pin_ends_for_itself(stage: Stage) -> None:
    client, server = stage.unlinked()
    does(client, server, b"LISTEN x")
    server.say(inquired(left="t"))
    does(client, server, b"LOAD 'x'")
    assert client.session.pins == {PinReason.LISTEN, PinReason.LOAD}
    does(client, server, b"UNLISTEN x")
    server.say(inquired(left="f"))
    assert client.session.pins == {PinReason.LOAD}
    assert client.state is SessionState.PINNED
    client.says(encode.TERMINATE)
    assert (server.take(), server.aborted) == (b"", True)  # no reset takes the library away
    stage.leave()


def test_another_user_ends_with_what_the_server_reports(stage: Stage) -> None:
    client, server = stage.unlinked()
    status = encode.parameter_status(b"session_authorization", b"other")
    stage.pool.idle[0].login_parameters["session_authorization"] = "app"
    client.says(encode.query(b"SET SESSION AUTHORIZATION other"))
    server.take()
    server.say(encode.command_complete("SET"), status, encode.ready_for_query())
    assert names(server.take()) == ["role"]
    server.say(inquired("none"))
    assert client.session.pins == {PinReason.ROLE}
    client.says(encode.query(b"RESET SESSION AUTHORIZATION"))
    server.take()
    status = encode.parameter_status(b"session_authorization", b"app")
    server.say(encode.command_complete("RESET"), status, encode.ready_for_query())
    server.say(inquired("none"))
    assert client.session.pins == set()
    assert client.state is SessionState.IDLE
    stage.leave()


def test_a_search_path_of_temporary_tables_pins_as_long_as_it_is_there(stage: Stage) -> None:
    client, server = stage.unlinked()
    del stage.network.reported  # an older server, which does not report it
    asked = does(client, server, b"SET search_path = pg_temp")
    assert names(asked) == ["search_path"]
    server.say(inquired("pg_temp", left="f"))
    assert client.session.pins == {PinReason.TEMP_TABLE}, "whatever it makes next is temporary"
    assert names(does(client, server, b"SET search_path = public")) == ["search_path"]
    server.say(inquired("public"))
    assert b"EXISTS" in server.take()
    server.say(inquired(left="f"))
    assert client.session.pins == set()
    stage.leave()
