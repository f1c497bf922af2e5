"""What each message of a client becomes on its server connection, and what the client then hears."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.model import Tenant
from proxy.wire import encode
from tests.client.stage import DIRECTORY, Stage, settings_taken
from tests.rawclient import sqlstates

HUGE = 2_000_000  # beyond what is held until it is whole
SMUGGLED = encode.query(b"SET app.tenant_id = 'beta'")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def begun(kind: bytes, head: bytes, length: int = HUGE) -> bytes:
    """The first part of a frame of `length` bytes."""
    return kind + length.to_bytes(4, "big") + head


@pytest.mark.parametrize(
    "head",
    [
        begun(b"F", (2078).to_bytes(4, "big") + bytes(20_000)),
        begun(b"D", b"Stiergate_1" + b"x" * 20_000 + b"\0"),
        begun(b"C", b"Stiergate_1" + b"x" * 20_000 + b"\0"),
    ],
    ids=["FunctionCall", "Describe", "Close"],
)
def test_the_body_of_a_frame_that_is_exchanged_never_reaches_the_server(stage: Stage, head: bytes) -> None:
    """It would be read as frames there, which nobody has looked at."""
    client, server = stage.linked()
    client.says(head)
    if not client.transport.closed:
        client.says(SMUGGLED)
    assert SMUGGLED not in server.take()
    stage.leave()


def test_the_body_of_an_execute_behind_which_more_must_follow_never_reaches_the_server(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(encode.parse(b"", b"RESET ALL") + encode.bind(b"", b"", []))
    client.says(begun(b"E", bytes(20_000)))
    if not client.transport.closed:
        client.says(SMUGGLED)
    assert SMUGGLED not in server.take()
    stage.leave()


# --- statements -------------------------------------------------------------------------------------

PARSED, BOUND, CLOSED = encode.PARSE_COMPLETE, encode.BIND_COMPLETE, encode.CLOSE_COMPLETE
READY = encode.ready_for_query()
SELECTED = encode.command_complete("SELECT 1")
ERROR = encode.error("no", "42601")


def use(name: bytes = b"") -> bytes:
    return encode.bind(b"", name, []) + encode.execute() + encode.SYNC


def last_name(asked: bytes) -> bytes:
    """The name in the last Parse that was sent."""
    at = asked.rindex(b"tiergate_")
    return asked[at : asked.index(b"\0", at)]


def test_a_named_statement_has_a_name_of_ours_on_the_server(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"s", b"SELECT 1") + use(b"s"))
    asked = server.take()
    name = last_name(asked)
    assert asked == encode.parse(name, b"SELECT 1") + use(name)
    server.say(PARSED, BOUND, SELECTED, READY)
    assert client.kinds() == "12CZ"
    stage.leave()


def test_a_reply_of_ours_is_not_said_within_a_frame_that_has_come_in_part(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"s", b"SELECT 1") + encode.SYNC)
    server.say(PARSED, READY)
    client.reads()
    described = encode.frame(b"T", b"\0\1column\0" + bytes(18))
    client.says(encode.bind(b"", b"s", []) + encode.describe(b"P", b"") + encode.FLUSH)
    server.say(BOUND, described[:12])
    client.says(encode.close(b"S", b"s") + encode.SYNC)
    server.say(described[12:], READY)
    assert client.kinds() == "2T3Z"
    stage.leave()


def test_another_client_with_the_same_text_finds_it_prepared(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"s", b"SELECT 1") + encode.SYNC)
    name = last_name(server.take())
    server.say(PARSED, READY)
    other = stage.client()
    other.says(encode.parse(b"mine", b"SELECT 1") + encode.describe(b"S", b"mine") + use(b"mine"))
    assert server.take() == encode.describe(b"S", name) + use(name)
    server.say(encode.NO_DATA, BOUND, SELECTED, READY)
    assert other.kinds() == "1n2CZ"
    stage.leave()


def test_a_statement_that_this_server_lacks_is_prepared_again_unheard(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"s", b"SELECT 1") + encode.SYNC)
    name = last_name(server.take())
    server.say(PARSED, READY)
    assert client.kinds() == "1Z"
    stage.pools.reconnect()
    stage.network.hang_ups()
    client.says(use(b"s"))
    stage.pools.step()
    server = stage.server(1)
    server.say(settings_taken())
    assert server.take().endswith(encode.parse(name, b"SELECT 1") + use(name))
    server.say(PARSED, BOUND, SELECTED, READY)
    assert client.kinds() == "2CZ"
    stage.leave()


def test_a_name_the_client_never_prepared_means_none_of_ours(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"s", b"SELECT 1") + encode.SYNC)
    name = last_name(server.take())
    server.say(PARSED, READY)
    stranger = stage.client()
    for request in (
        use(name),
        encode.describe(b"S", name) + encode.SYNC,
        encode.close(b"S", name) + encode.SYNC,
    ):
        stranger.says(request)
        asked = server.take()
        assert b"\0" + name + b"\0" not in asked
        assert b"S" + name + b"\0" not in asked
        server.say(ERROR, READY)
    stage.leave()


def test_a_closed_statement_stays_on_the_server_and_the_client_may_use_the_name_again(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"s", b"SELECT 1") + encode.SYNC)
    server.take()
    server.say(PARSED, READY)
    client.says(encode.close(b"S", b"s") + encode.parse(b"s", b"SELECT 2") + encode.SYNC)
    asked = server.take()
    assert asked == encode.parse(last_name(asked), b"SELECT 2") + encode.SYNC
    server.say(PARSED, READY)
    assert client.kinds() == "1Z31Z"
    stage.leave()


def test_a_close_that_was_skipped_after_an_error_has_not_closed(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"s", b"SELECT 1") + encode.SYNC)
    name = last_name(server.take())
    server.say(PARSED, READY)
    client.says(encode.bind(b"", b"other", []) + encode.close(b"S", b"s") + encode.SYNC)
    server.take()
    server.say(ERROR, READY)
    client.says(use(b"s"))
    assert server.take() == use(name)
    stage.leave()


def test_a_parse_that_fails_leaves_no_statement(stage: Stage) -> None:
    client, server = stage.unlinked()
    for _ in range(2):
        client.says(encode.parse(b"s", b"SELEC 1") + encode.SYNC)
        assert b"SELEC 1" in server.take()
        server.say(ERROR, READY)
    client.says(use(b"s"))
    assert server.take() == use(b"s"), "the server itself says that there is none"
    stage.leave()


def test_the_same_name_twice_is_the_servers_error_under_the_clients_name(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"s", b"SELECT 1") + encode.SYNC)
    name = last_name(server.take())
    server.say(PARSED, READY)
    client.says(encode.parse(b"s", b"SELECT 2") + encode.SYNC)
    assert server.take() == encode.parse(name, b"SELECT 2") + encode.SYNC
    server.say(encode.error(f'prepared statement "{name.decode()}" already exists', "42P05"), READY)
    said = client.reads()
    assert b'"s" already exists' in said[2].body
    stage.leave()


# --- the unnamed statement --------------------------------------------------------------------------


def test_the_unnamed_statement_follows_the_client_to_another_server(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELECT 1") + encode.SYNC)
    assert server.take() == encode.parse(b"", b"SELECT 1") + encode.SYNC
    server.say(PARSED, READY)
    other = stage.client()
    other.says(encode.parse(b"", b"SELECT 2") + encode.SYNC)
    server.take()
    server.say(PARSED, READY)
    client.says(use())
    assert server.take() == encode.parse(b"", b"SELECT 1") + use()
    server.say(PARSED, BOUND, SELECTED, READY)
    assert client.kinds() == "1Z2CZ"
    stage.leave()


def test_nobody_finds_the_unnamed_statement_of_another(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELECT 'secret'") + encode.SYNC)
    server.take()
    server.say(PARSED, READY)
    other = stage.client()
    other.says(use())
    assert server.take() == encode.close(b"S", b"") + use()
    stage.leave()


def test_nor_where_named_statements_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, max_prepared_statements=0)
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELECT 'secret'") + encode.describe(b"S", b"") + use())
    server.take()
    server.say(PARSED, encode.frame(b"t", b"\0\0"), encode.NO_DATA, BOUND, SELECTED, READY)
    assert client.kinds() == "1tn2CZ"
    other = stage.client()
    for request in (use(), encode.describe(b"S", b"") + encode.SYNC):
        other.says(request)
        assert server.take() == encode.close(b"S", b"") + request
        server.say(CLOSED, ERROR, READY)
        client.says(use())
        assert b"secret" in server.take()
        server.say(PARSED, encode.frame(b"t", b"\0\0"), encode.NO_DATA)
        assert server.take() == use()
        server.say(BOUND, SELECTED, READY)
        assert client.kinds() == "2CZ"
    stage.leave()


def test_a_parse_that_is_refused_leaves_the_unnamed_statement(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELECT 1") + encode.SYNC)
    server.take()
    server.say(PARSED, READY)
    client.says(encode.parse(b"s", b"SET app.tenant_id = 'beta'") + encode.SYNC)
    assert encode.parse(b"", b"")[:6] not in server.take()
    server.say(ERROR, READY)
    client.says(use())
    assert server.take() == use()
    stage.leave()


@pytest.mark.parametrize(
    "skipped",
    [
        encode.bind(b"", b"", []),
        encode.parse(b"", b"SELECT 2"),
        encode.close(b"S", b""),
        encode.parse(b"", b"SELECT 2") + encode.bind(b"", b"", []) + encode.close(b"S", b""),
    ],
    ids=["Bind", "Parse", "Close", "all"],
)
def test_nor_after_an_error_for_which_the_server_skipped_its_end(stage: Stage, skipped: bytes) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELECT 'secret'") + encode.SYNC)
    server.take()
    server.say(PARSED, READY)
    other = stage.client()
    other.says(encode.bind(b"", b"missing", []) + skipped + encode.SYNC)
    server.take()
    server.say(ERROR, READY)
    other.says(use())
    assert server.take().endswith(encode.close(b"S", b"") + use())
    stage.leave()


def test_nor_before_it_is_known_whether_its_own_was_skipped(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELECT 'secret'") + encode.SYNC)
    server.take()
    server.say(PARSED, READY)
    other = stage.client()
    failing = encode.bind(b"", b"missing", []) + encode.parse(b"", b"SELECT 2") + encode.SYNC
    other.says(failing + use())
    assert server.take().startswith(failing)
    assert other.reads() == []
    server.say(ERROR, READY)
    assert server.take() == encode.close(b"S", b"") + use()
    stage.leave()


def test_what_waits_for_no_earlier_batch_is_sent_at_once(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"s", b"SELECT 1") + use(b"s"))
    name = last_name(server.take())
    client.says(encode.parse(b"", b"SELECT 2") + use())
    assert server.take() == encode.parse(b"", b"SELECT 2") + use()
    client.says(encode.parse(b"", b"SELECT 3") + use() + use(b"s"))
    assert server.take() == encode.parse(b"", b"SELECT 3") + use() + encode.FLUSH, "its Parse is not answered"
    server.say(PARSED, BOUND, SELECTED, READY, (PARSED + BOUND + SELECTED + READY) * 2)
    assert server.take() == use(name)
    client.says(use(b"s") * 2)
    assert server.take() == use(name) * 2
    stage.leave()


@pytest.mark.parametrize("skipped", [encode.close(b"S", b""), encode.parse(b"", b"SELECT 2")])
def test_what_was_skipped_leaves_the_client_its_own(stage: Stage, skipped: bytes) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELECT 1") + encode.SYNC)
    server.take()
    server.say(PARSED, READY)
    client.says(encode.bind(b"", b"missing", []) + skipped + encode.SYNC)
    server.take()
    server.say(ERROR, READY)
    client.says(use())
    assert server.take() == encode.parse(b"", b"SELECT 1") + use(), "it still has it"
    stage.leave()


def test_a_change_of_state_leaves_the_unnamed_statement(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"", b"SELECT 1") + encode.SYNC)
    server.take()
    server.say(PARSED, READY)
    other = stage.client("beta")
    other.says(use())
    asked = server.take()
    assert b"beta" in asked
    assert asked.endswith(encode.close(b"S", b"") + use()), "it is not the other's"
    stage.leave()


def test_a_query_takes_the_unnamed_statement_away(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(encode.parse(b"", b"SELECT 1") + encode.SYNC)
    client.says(encode.query(b"SELECT 2"))
    server.take()
    client.says(use())
    assert server.take() == use(), "the server says that there is none"
    stage.leave()


def test_what_is_taken_back_is_not_what_came_after_it(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.bind(b"", b"missing", []) + encode.parse(b"", b"SELECT 1") + encode.SYNC)
    client.says(encode.parse(b"", b"SELECT 2") + encode.SYNC)
    server.take()
    server.say(ERROR, READY, PARSED, READY)
    client.says(use())
    assert server.take() == use(), "of SELECT 2"
    stage.leave()


def test_a_dedicated_cluster_of_two_tenants_is_guarded_as_a_shared_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change = encode.query(b"SET app.tenant_id = 'other'")
    alone = Stage(monkeypatch)
    client, server = alone.linked("big")
    client.says(change)
    assert server.take() == change, "nobody else is there"
    alone.leave()
    tenants = {**DIRECTORY.tenants, "other": Tenant("other", "enterprise", "own")}
    together = Stage(monkeypatch, directory=replace(DIRECTORY, tenants=tenants))
    client, server = together.linked("big")
    client.says(change)
    assert b"other" not in server.take()
    server.say(ERROR, READY)
    assert sqlstates(client.reads()) == ["42501"]
    together.leave()
