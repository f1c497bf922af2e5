"""When the tenant of a server connection is sealed, and when anew."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from proxy.model import Seal, SealKey
from proxy.protocol import pipeline as owed
from proxy.protocol.pipeline import Pipeline
from proxy.protocol.seal import PARAMETER, Introduction, sign
from proxy.protocol.state import intern
from proxy.server import janitor, sealing
from proxy.server.connection import IN_TRANSACTION, ServerConnection
from proxy.server.sealing import NEVER, Sealer
from proxy.wire import encode
from tests.server.recording import Link, connection
from tests.transports import Transport

SEAL = Seal("App.Tenant_ID", 100.0, (SealKey("k", "s" * 32),))
ACME = intern({"app.tenant_id": "acme"})
BETA = intern({"app.tenant_id": "beta"})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(sealing, "monotonic", lambda: clock.now)
    return clock


def sealed(clock: SimpleNamespace) -> tuple[ServerConnection, Transport]:
    """Its server's clock is 1000 seconds ahead of ours."""
    server, wire = connection(link=Link())
    server.sealer = Sealer(SEAL, Introduction(clock.now + 1000.0, "backend"), clock.now)
    return server, wire


def seal_of(tenant: str, expires: int) -> bytes:
    return sign(SEAL, tenant, "backend", expires).encode()


def test_the_tenant_and_its_seal_are_one_change(clock: SimpleNamespace) -> None:
    server, _ = sealed(clock)
    asked = server.apply(ACME)
    assert asked.count(b"P\0\0") == 1, "one statement"
    assert PARAMETER.encode() in asked
    assert seal_of("acme", 1150) in asked
    assert server.values is ACME, "the seal is no part of what is compared"
    assert server.seal_due == 100.0, "when half of its life is over"


def test_nothing_is_asked_while_it_is_good(clock: SimpleNamespace) -> None:
    server, _ = sealed(clock)
    server.apply(ACME)
    clock.now = 99.9
    assert server.apply(ACME) == b""


def test_from_half_of_its_life_on_it_is_renewed(clock: SimpleNamespace) -> None:
    server, _ = sealed(clock)
    server.apply(ACME)
    clock.now = 100.0
    assert seal_of("acme", 1200) in server.apply(ACME)
    assert server.seal_due == 150.0


def test_another_tenant_gets_another_seal_at_once(clock: SimpleNamespace) -> None:
    server, _ = sealed(clock)
    server.apply(ACME)
    assert seal_of("beta", 1150) in server.apply(BETA)


def test_what_leaves_the_tenant_alone_needs_no_seal(clock: SimpleNamespace) -> None:
    server, _ = sealed(clock)
    server.apply(ACME)
    asked = server.apply(intern({"app.tenant_id": "acme", "timezone": "CET"}))
    assert b"CET" in asked
    assert PARAMETER.encode() not in asked


def test_without_a_tenant_there_is_no_seal_either(clock: SimpleNamespace) -> None:
    server, _ = sealed(clock)
    assert PARAMETER.encode() not in server.apply(intern({"timezone": "CET"}))
    server.apply(ACME)
    asked = server.apply(intern({"timezone": "CET"}))
    assert PARAMETER.encode() + b"\xff\xff\xff\xff" in asked, "taken back with the tenant"


def test_a_reset_that_sets_the_tenant_again_seals_it_again(clock: SimpleNamespace) -> None:
    server, _ = sealed(clock)
    server.apply(ACME)
    due = server.seal_due
    clock.now = 90.0
    assert seal_of("acme", 1190) in server.set_again({"app.tenant_id": "acme"})
    assert seal_of("acme", 1190) in server.set_again({"app.tenant_id": "acme"}, within=True)
    assert server.seal_due == due, "it may be rolled back to the seal before"


def test_a_connection_that_is_not_sealed_is_never_due(clock: SimpleNamespace) -> None:
    server, _ = connection(link=Link())
    assert PARAMETER.encode() not in server.apply(ACME)
    assert server.seal_due == NEVER
    clock.now = 1e12
    assert server.apply(ACME) == b""


def test_a_refusal_has_it_sealed_anew(clock: SimpleNamespace) -> None:
    """What a function of the client's own has put in the seal's place is not left to the next client."""
    server, wire = sealed(clock)
    server.apply(ACME)
    server.pipeline = Pipeline()
    for sqlstate, renewed in (("22012", False), ("42501", True)):
        server.expect(owed.FORWARD_QUERY)
        wire.say(encode.error("no", sqlstate), encode.ready_for_query())
        assert bool(server.apply(ACME)) == renewed


@pytest.mark.parametrize(("now", "renewed"), [(99.0, False), (100.0, True)])
def test_the_sweep_tells_who_keeps_a_connection_that_its_seal_is_due(
    clock: SimpleNamespace, now: float, renewed: bool
) -> None:
    server, _ = sealed(clock)
    server.apply(ACME)
    server.pipeline = Pipeline()
    link = server.link
    assert isinstance(link, Link)
    janitor._enforce(SimpleNamespace(), server, now)  # type: ignore[arg-type]
    assert link.take() == (["ready"] if renewed else [])
    assert server.seal_due == (0.0 if renewed else 100.0)


def test_not_within_a_transaction(clock: SimpleNamespace) -> None:
    server, _ = sealed(clock)
    server.apply(ACME)
    server.pipeline = Pipeline()
    server.status = IN_TRANSACTION
    janitor._enforce(SimpleNamespace(), server, 1e9)  # type: ignore[arg-type]
    assert server.seal_due == 100.0
