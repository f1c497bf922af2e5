"""What statements leave behind: pins where only one connection has it, and RESETs that go back to the session's start."""

from __future__ import annotations

import pytest

from proxy.client import effects
from proxy.model import PinReason, PoolMode, ServerOptions
from proxy.protocol.lifecycle import SessionState
from proxy.sql.verdict import PLAIN, Judge, Verdict
from proxy.wire import encode
from tests.client.simulated import SimulatedServer
from tests.client.stage import Client, Stage, settings_again
from tests.rawclient import errors, kinds
from tests.transports import Transport


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def asked(client: Client, server: Transport, text: bytes) -> bytes:
    """What the server is sent for a simple query."""
    client.says(encode.query(text))
    return server.take()


PINS = {
    b"LISTEN x": PinReason.LISTEN,
    b"PREPARE p AS SELECT pg_advisory_lock(1)": PinReason.SQL_PREPARE,
    b"CREATE TEMP TABLE t (a int)": PinReason.TEMP_TABLE,
    b"SELECT pg_advisory_lock(1)": PinReason.ADVISORY_LOCK,
    b"DECLARE c CURSOR WITH HOLD FOR SELECT 1": PinReason.HOLD_CURSOR,
    b"SET SESSION AUTHORIZATION x": PinReason.ROLE,
    b"LOAD 'x'": PinReason.LOAD,
    b"SET idle_session_timeout = '1min'": PinReason.SET,
    b"SELECT set_config('temp_buffers', '1MB', false)": PinReason.SET,
}


@pytest.mark.parametrize("text", PINS)
@pytest.mark.parametrize("way", ["simple", "extended", "named"])
def test_what_stays_on_the_connection_pins(stage: Stage, text: bytes, way: str) -> None:
    client, _server = stage.unlinked()
    name = b"s" if way == "named" else b""
    if way == "simple":
        client.says(encode.query(text))
    else:
        client.says(encode.parse(name, text) + encode.bind(b"", name, []) + encode.execute() + encode.SYNC)
    assert PINS[text] in client.session.pins
    assert client.state is SessionState.PINNED
    assert client.session.server is not None
    assert not client.session.server.dirty, "as long as it is the session's"
    stage.leave()


@pytest.mark.parametrize("mode", [PoolMode.TRANSACTION, PoolMode.SESSION])
@pytest.mark.parametrize(
    ("text", "spent"),
    [
        (b"LOAD 'x'", True),
        (b"SELECT dblink_connect('x')", True),
        (b"LISTEN x", False),
        (b"CREATE TEMP TABLE t (a int)", False),
    ],
)
def test_what_no_reset_clears_spends_the_connection(
    stage: Stage, text: bytes, spent: bool, mode: PoolMode
) -> None:
    client, _server = stage.unlinked()
    client.session.mode = mode
    client.says(encode.query(text))
    assert client.session.server is not None
    assert client.session.server.spent is spent
    client.session.mode = PoolMode.TRANSACTION
    stage.leave()


@pytest.mark.parametrize(
    "text",
    [
        b"SET TimeZone = 'CET'",
        b"SELECT 1",
        b"SET LOCAL work_mem = '1MB'",
        b"BEGIN",
        b"SET work_mem = '1MB'",
        b"SET ROLE x",
        b"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    ],
)
def test_what_can_follow_or_passes_does_not(stage: Stage, text: bytes) -> None:
    client, server = stage.unlinked()
    asked(client, server, text)
    assert client.session.pins == set()
    stage.leave()


def test_a_second_reason_is_added_and_counted_once_each(stage: Stage) -> None:
    client, server = stage.unlinked()
    asked(client, server, b"LISTEN x")
    asked(client, server, b"LISTEN y")
    asked(client, server, b"LOAD 'x'")
    assert client.session.pins == {PinReason.LISTEN, PinReason.LOAD}
    assert stage.process.pins == {"listen": 1, "load": 1}
    stage.leave()


def test_a_text_too_long_to_inspect_pins(stage: Stage) -> None:
    client, server = stage.unlinked("acme")
    long = encode.query(b"SELECT '" + b"x" * 1_100_000 + b"'")
    client.says(long[:20_000])
    assert client.session.pins == {PinReason.UNINSPECTED}
    client.says(long[20_000:])
    assert server.take() == long
    stage.leave()


def test_one_that_names_the_tenant_ends_the_session_before_it_is_whole(stage: Stage) -> None:
    client, server = stage.unlinked("acme")
    long = encode.query(b"SELECT '" + b"x" * 1_100_000 + b"'; SET app.tenant_id = 'beta'")
    client.says(long[:20_000])
    client.says(long[20_000:])
    assert b"tenant_id" not in server.take()
    assert [error["C"] for error in errors(client.reads())] == ["42501"]
    assert client.transport.closed
    stage.leave()


@pytest.mark.parametrize("text", [b"SET app.tenant_id = 'beta'", b"RESET app.tenant_id"])
@pytest.mark.parametrize("way", ["simple", "extended"])
def test_a_change_of_the_tenant_is_refused_in_its_place(stage: Stage, text: bytes, way: str) -> None:
    client, server = stage.linked()
    refused = encode.error('syntax error at or near "refused"', "42601")
    if way == "simple":
        client.says(encode.query(text))
        assert b"tenant_id" not in server.take()
        server.say(refused, encode.ready_for_query(b"E"))
    else:
        client.says(encode.parse(b"", text) + encode.SYNC)
        assert b"tenant_id" not in server.take()
        server.say(refused, encode.ready_for_query(b"E"))
    said = client.reads()
    assert kinds(said) == "EZ"
    assert errors(said)[0]["C"] == "42501"
    stage.leave()


def test_on_a_cluster_of_its_own_a_tenant_may_set_what_it_likes(stage: Stage) -> None:
    client, server = stage.unlinked("big")
    assert asked(client, server, b"SET app.tenant_id = 'x'") == encode.query(b"SET app.tenant_id = 'x'")
    stage.leave()


# --- resets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"RESET ALL", {"app.tenant_id", "application_name"}),
        (b"DISCARD ALL", set()),
        (b"RESET application_name", {"application_name"}),
        (b"SET application_name TO DEFAULT", {"application_name"}),
        (b"RESET timezone", set()),
        (b"SELECT 1", set()),
    ],
)
def test_a_reset_gets_back_what_the_session_began_with(stage: Stage, text: bytes, names: set[str]) -> None:
    client, _server = stage.linked(application_name="mine")
    restored = effects.restored(client.session, Judge().judge(text))
    assert restored.keys() == names
    assert all(restored[name] == client.session.startup.parameters[name] for name in names)
    stage.leave()


def test_it_follows_right_behind_a_simple_query(stage: Stage) -> None:
    client, server = stage.unlinked(application_name="mine")
    sent = asked(client, server, b"RESET application_name")
    reset = encode.query(b"RESET application_name")
    assert sent.startswith(reset)
    assert sent.endswith(encode.SYNC)
    assert b"mine" in sent[len(reset) :]
    server.say(
        encode.command_complete("RESET"),
        encode.parameter_status(b"application_name", b""),
        encode.ready_for_query(),
        settings_again(("application_name", "mine")),
    )
    assert client.kinds() == "CZ", "for the client nothing has changed"
    stage.leave()


def reset(name: bytes = b"", portal: bytes = b"") -> bytes:
    return (
        encode.parse(name, b"RESET application_name") + encode.bind(portal, name, []) + encode.execute(portal)
    )


SET_AGAIN = settings_again()[: -len(encode.ready_for_query())]


def test_and_behind_the_execute_in_a_batch(stage: Stage) -> None:
    client, server = stage.unlinked(application_name="mine")
    client.says(reset() + encode.execute(b"p"))
    sent = server.take()
    assert sent.startswith(reset())
    assert sent.endswith(encode.execute(b"p"))
    assert b"mine" in sent
    assert encode.SYNC not in sent
    client.says(encode.SYNC)
    assert server.take() == encode.SYNC
    executed = encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("RESET")
    server.say(executed, SET_AGAIN, encode.error("no", "34000"), encode.ready_for_query())
    assert client.kinds() == "12CEZ"
    stage.leave()


def test_it_fails_for_the_client(stage: Stage) -> None:
    """For example by a timeout of the client's own: then the batch has failed, and the RESET with it."""
    client, server = stage.unlinked(application_name="mine")
    client.says(reset() + encode.parse(b"s", b"SELECT 1") + encode.SYNC)
    executed = encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("RESET")
    prepared = encode.CLOSE_COMPLETE + encode.PARSE_COMPLETE + encode.BIND_COMPLETE
    server.say(executed, prepared, encode.error("no", "57014"), encode.ready_for_query())
    assert client.kinds() == "12CEZ"
    assert client.session.statements == {}
    assert not stage.pool.idle[0].closing
    stage.leave()


def in_mode(monkeypatch: pytest.MonkeyPatch, mode: str) -> tuple[Client, Transport]:
    stage = Stage(monkeypatch, options=ServerOptions(pool_mode=PoolMode(mode)))
    start = stage.kept if mode == "session" else stage.unlinked
    return start("acme", application_name="mine")


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_only_what_resets_is_followed(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    client, server = in_mode(monkeypatch, mode)
    simulated = SimulatedServer()

    def follows(*asked: bytes) -> int:
        client.says(*asked, encode.SYNC)
        sent = server.take()
        server.say(simulated.feed(sent))
        return sent.count(b"mine")

    select = encode.parse(b"s", b"SELECT 1")
    assert follows(reset(b"r"), select, encode.bind(b"", b"s", []), encode.execute()) == 1
    closed = encode.close(b"P", b"")
    assert follows(encode.bind(b"", b"r", []), encode.execute(), closed, encode.execute()) == 1
    others = encode.bind(b"x", b"r", []) + encode.bind(b"y", b"s", [])
    assert follows(others, encode.execute(b"y")) == 0
    again = encode.close(b"S", b"r") + encode.parse(b"r", b"SELECT 2")
    assert follows(again, encode.bind(b"", b"r", []), encode.execute()) == 0
    client.stage.leave()


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_what_was_skipped_changes_nothing_of_that(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    client, server = in_mode(monkeypatch, mode)
    stage = client.stage
    client.says(encode.parse(b"r", b"RESET application_name") + encode.SYNC)
    server.take()
    server.say(encode.PARSE_COMPLETE, encode.ready_for_query())
    client.says(encode.bind(b"", b"missing", []) + encode.close(b"S", b"r") + encode.SYNC)
    server.take()
    server.say(encode.error("no", "26000"), encode.ready_for_query())
    client.says(encode.bind(b"", b"r", []) + encode.execute() + encode.SYNC)
    assert server.take().count(b"mine") == 1
    stage.leave()


def test_what_an_earlier_batch_has_not_bound_does_not_hide_what_a_later_one_has(stage: Stage) -> None:
    client, server = stage.unlinked(application_name="mine")
    bound = encode.parse(b"", b"RESET application_name") + encode.bind(b"", b"", [])
    client.says(encode.bind(b"", b"missing", []) + bound + encode.SYNC + bound)
    server.take()
    server.say(encode.error("no", "26000"), encode.ready_for_query(), encode.PARSE_COMPLETE)
    client.says(encode.execute() + encode.SYNC)
    assert server.take().count(b"mine") == 1
    stage.leave()


def test_in_session_mode_nothing_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, options=ServerOptions(pool_mode=PoolMode.SESSION))
    client = stage.client()
    effects.obey(client.session, Verdict(pins=frozenset({PinReason.LISTEN}), sets=("work_mem",)))
    effects.obey(client.session, PLAIN)
    assert client.session.pins == set()
