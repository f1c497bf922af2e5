"""What the rules of a tenant refuse, in whichever way it is asked, and that the session goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.client.refusals import REFUSED
from proxy.errors import ParameterLocked
from proxy.model import Directory, PoolMode, ServerOptions, SqlPolicy, Tier
from proxy.wire import encode
from proxy.wire.frames import MAX_READ
from tests.client.stage import COMMIT, DIRECTORY, Client, Stage, assured, done
from tests.rawclient import errors, kinds, sqlstates
from tests.transports import Transport

SYNTAX = encode.error('syntax error at or near "refused"', "42601")
MISSING = encode.error('prepared statement "tiergate_refused" does not exist', "26000")
WIDE = b"SELECT * FROM a, b, c, d, e"
RUN = encode.bind(b"", b"", []) + encode.execute() + encode.SYNC
LONG = b"SELECT '" + b"x" * MAX_READ + b"'"


def ruled(parameters: dict[str, str] | None = None, tier: str = "standard", **policy: Any) -> Directory:
    tiers = {**DIRECTORY.tiers, tier: Tier(tier, policy=SqlPolicy(**policy), parameters=parameters or {})}
    return replace(DIRECTORY, tiers=tiers)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch, directory=ruled(max_joins=3))


def refused(client: Client, server: Transport, said: bytes = SYNTAX, status: bytes = b"E") -> tuple[str, str]:
    server.say(said, encode.ready_for_query(status))
    (error,) = errors(client.reads())
    return error["C"], error["M"]


TOO_WIDE = ("0A000", 'the statement has 4 joins; tier "standard" allows 3 (max_joins)')


def test_a_query(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(encode.query(WIDE))
    assert server.take() == encode.query(REFUSED)
    assert refused(client, server) == TOO_WIDE
    client.says(encode.query(b"ROLLBACK"))
    assert server.take() == encode.query(b"ROLLBACK")
    server.say(done("ROLLBACK"))
    assert client.kinds() == "CZ"
    assert client.session.account.stats.errors == {"0A000": 1}
    stage.leave()


def test_a_parse_and_what_uses_it(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(encode.parse(b"s", WIDE) + encode.bind(b"", b"s", []) + encode.execute() + encode.SYNC)
    assert WIDE not in server.take()
    assert refused(client, server, MISSING) == TOO_WIDE
    assert client.session.statements == {}
    stage.leave()


def test_what_is_allowed_passes_as_it_is(stage: Stage) -> None:
    client, server = stage.linked()
    for text in (b"SELECT * FROM a, b, c, d", b"SELECT 1", b"SELECT * FROM a, b, c, d, e WHERE ("):
        client.says(encode.query(text))
        assert server.take() == encode.query(text)
        server.say(done(status=b"T"))
        assert client.kinds() == "CZ"
    stage.leave()


def test_a_tenant_without_rules_has_none_asked(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    client, server = stage.linked("big")
    assert client.session.rules is None
    monkeypatch.setattr(stage.plane.answers, "refusal", lambda *_: pytest.fail("asked"))
    client.says(encode.query(WIDE))
    assert server.take() == encode.query(WIDE)
    stage.leave()


def test_rules_hold_on_dedicated_clusters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, directory=ruled(tier="enterprise", locked_parameters=frozenset({"work_mem"})))
    client, server = stage.linked("big")
    client.says(encode.query(b"SET work_mem = 1"))
    assert server.take() == encode.query(REFUSED)
    assert refused(client, server)[0] == "42501"
    stage.leave()


def test_in_statement_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(
        monkeypatch, directory=ruled(max_joins=3), options=ServerOptions(pool_mode=PoolMode.STATEMENT)
    )
    client = stage.client()
    client.says(encode.query(WIDE))
    stage.pools.step()
    server = stage.server()
    assert server.take().endswith(encode.query(REFUSED))
    server.say(assured())
    assert refused(client, server, status=b"I") == TOO_WIDE
    stage.leave()


def test_a_function_call(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, directory=ruled(tier="enterprise", locked_parameters=frozenset({"work_mem"})))
    client, server = stage.linked("big")
    arguments = b"".join(len(a).to_bytes(4, "big") + a for a in (b"work_mem", b"1GB", b"f"))
    body = (2078).to_bytes(4, "big") + b"\0\0" + b"\0\3" + arguments + b"\0\0"
    client.says(encode.frame(b"F", body))
    assert server.take() == encode.query(REFUSED)
    assert refused(client, server)[0] == "42501"
    stage.leave()


# --- texts that are not held whole ------------------------------------------------------------------


@pytest.mark.parametrize("way", ["simple", "extended"])
@pytest.mark.parametrize("answer_first", [False, True])
def test_a_text_in_pieces_is_refused_and_dropped(stage: Stage, way: str, answer_first: bool) -> None:
    client, server = stage.linked()
    text = encode.query(LONG) if way == "simple" else encode.parse(b"", LONG) + RUN
    said = SYNTAX if way == "simple" else MISSING
    client.says(text[:100_000])
    assert len(server.take()) < 100
    if answer_first and way == "simple":
        server.say(said, encode.ready_for_query(b"E"))
    client.says(text[100_000:200_000])
    client.says(text[200_000:] + encode.query(b"ROLLBACK"))
    rest = server.take()
    assert len(rest) < 200
    assert rest.endswith(encode.query(b"ROLLBACK"))
    if not (answer_first and way == "simple"):
        server.say(said, encode.ready_for_query(b"E"))
    server.say(done("ROLLBACK"))
    answer = client.reads()
    assert kinds(answer) == "EZCZ"
    assert sqlstates(answer) == ["0A000"]
    assert client.session.server is None
    stage.leave()


def test_a_text_in_pieces_that_no_rule_is_about_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, directory=ruled(tier="enterprise", max_statement_size=2 * MAX_READ))
    client, server = stage.linked("big")
    client.says(encode.query(LONG)[:100_000])
    client.says(encode.query(LONG)[100_000:])
    assert server.take() == encode.query(LONG)
    longer = encode.query(b"x" * (2 * MAX_READ + 1))
    client.says(longer[:100_000])
    assert server.take() == encode.query(REFUSED)
    client.says(longer[100_000:])
    assert server.take() == b""
    stage.leave()


def test_a_client_that_leaves_within_a_dropped_text(stage: Stage) -> None:
    client, _ = stage.linked()
    client.says(encode.query(LONG)[:100_000])
    client.transport.hang_up()
    stage.leave()


# --- the rules change -------------------------------------------------------------------------------


def test_rules_hold_from_the_next_transaction_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    client, server = stage.linked()
    stage.registry.replace(ruled(max_joins=3), stage.plane.options)
    client.says(encode.query(WIDE))
    assert server.take() == encode.query(WIDE)
    server.say(done(status=b"T"))
    client.says(COMMIT)
    server.take()
    server.say(done("COMMIT"))
    client.reads()
    client.says(encode.query(WIDE))
    assert server.take() == encode.query(REFUSED)
    assert refused(client, server, status=b"I") == TOO_WIDE
    stage.registry.replace(DIRECTORY, stage.plane.options)
    client.says(encode.query(WIDE))
    assert server.take() == encode.query(WIDE)
    stage.leave()


@pytest.mark.parametrize("name", [b"", b"s"])
def test_a_statement_that_was_prepared_before_is_not_run_any_more(
    monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    stage = Stage(monkeypatch)
    client, server = stage.unlinked()
    client.says(encode.parse(name, WIDE) + encode.SYNC)
    server.take()
    server.say(encode.PARSE_COMPLETE, encode.ready_for_query())
    client.reads()
    stage.registry.replace(ruled(max_joins=3), stage.plane.options)
    client.says(encode.bind(b"", name, []) + encode.execute() + encode.SYNC)
    assert b"tiergate_refused" in server.take()
    assert refused(client, server, MISSING, b"I") == TOO_WIDE
    client.says(encode.bind(b"", name, [b"x" * MAX_READ])[:100_000])
    assert len(server.take()) < 100
    stage.leave()


def test_a_parameter_that_becomes_locked_goes_back_to_the_tiers_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    client, server = stage.unlinked(datestyle="German", timezone="CET")
    locked = frozenset({"datestyle"})
    stage.registry.replace(ruled({"DateStyle": "ISO"}, locked_parameters=locked), stage.plane.options)
    client.says(encode.query(b"SELECT 1"))
    server.take()
    assert client.session.state_needed.parameters["datestyle"] == "ISO"
    assert client.session.state_needed.parameters["timezone"] == "CET"
    stage.leave()


# --- parameters that the proxy sets -----------------------------------------------------------------


def test_a_read_only_tenant_begins_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, directory=ruled(read_only=True))
    client = stage.client(default_transaction_read_only="on")
    assert client.session.startup.parameters["default_transaction_read_only"] == "on"
    with pytest.raises(ParameterLocked):
        stage.client(default_transaction_read_only="off")
    stage.leave()


def test_a_client_cannot_ask_for_another_value_of_a_locked_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(
        monkeypatch, directory=ruled({"work_mem": "4MB"}, locked_parameters=frozenset({"work_mem", "jit"}))
    )
    assert stage.client(Work_Mem="4MB").session.startup.parameters["work_mem"] == "4MB"
    for asked in ({"WORK_mem": "1GB"}, {"jit": "off"}):
        with pytest.raises(ParameterLocked, match="cannot be changed: locked by tier"):
            stage.client(**asked)
    stage.leave()
