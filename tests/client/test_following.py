"""Sessions whose tenants have changed in the registry, and accounts that nobody uses any more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.admission.lease import Leases
from proxy.client.following import end_unserved, forget_unused, tenants_changed
from proxy.protocol.lifecycle import SessionState
from proxy.registry.cache import Cache
from proxy.registry.memory import OLD
from proxy.registry.rows import Row
from proxy.wire import encode
from tests.client.stage import Client, Stage, done
from tests.rawclient import errors, sqlstates

ACME = Row("0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01", "acme", "standard", "shared_pool")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    found = Stage(monkeypatch)
    found.registry.rows = Cache(2, 300.0, 5.0)
    found.registry.rows.in_use = found.plane.accounts.__contains__
    return found


def stored(stage: Stage, row: Row) -> None:
    if stage.registry.take(row):
        tenants_changed(stage.plane, frozenset({row.tenant_code}))


def told(client: Client) -> list[tuple[str, str]]:
    return [(error["C"], error["M"]) for error in errors(client.reads())]


def test_an_idle_session_follows_at_once_and_others_are_left_alone(stage: Stage) -> None:
    client, other = stage.client(), stage.client("beta")
    epoch = other.session.epoch
    stored(stage, replace(ACME, max_qps=7, query_timeout_ms=1500))
    assert client.session.limits.query_timeout == 1.5
    assert client.session.account.limits.max_qps == 7
    assert client.session.epoch == other.session.epoch == epoch
    stage.leave()


def test_one_in_a_transaction_follows_when_that_is_over(stage: Stage) -> None:
    client, server = stage.linked()
    stored(stage, replace(ACME, query_timeout_ms=1500))
    assert client.session.epoch == OLD
    assert not client.session.limits.query_timeout
    client.says(encode.query(b"COMMIT"))
    server.say(done("COMMIT"))
    client.says(encode.query(b"SELECT 1"))
    assert client.session.limits.query_timeout == 1.5
    stage.leave()


def test_sessions_of_a_tenant_that_is_served_no_more_end(stage: Stage) -> None:
    idle = stage.client()
    busy, _ = stage.linked()
    stored(stage, replace(ACME, active=False))
    assert told(idle) == [("57P01", 'tenant "acme" has been suspended')]
    assert busy.state is not SessionState.CLOSED
    end_unserved(busy.session)
    assert told(busy) == [("57P01", 'tenant "acme" has been suspended')]
    assert busy.state is SessionState.CLOSED


def test_one_that_waits_for_a_connection_ends_as_well(stage: Stage) -> None:
    client = stage.client()
    client.says(encode.query(b"SELECT 1"))
    assert client.state is SessionState.WAITING
    stored(stage, replace(ACME, active=False))
    assert sqlstates(client.reads()) == ["57P01"]
    assert client.state is SessionState.CLOSED
    stage.pools.step()


def test_one_that_waits_for_a_connection_waits_where_its_tenant_lives_now(stage: Stage) -> None:
    client = stage.client()
    client.says(encode.query(b"SELECT 1"))
    stored(stage, replace(ACME, cluster_name="own"))
    assert client.state is SessionState.WAITING
    assert client.session.pool.key.cluster == "own"
    assert not any(pool.queue for pool in stage.pools if pool.key.cluster == "shared")
    stage.pools.step()
    server = client.session.server
    assert server is not None
    assert server.endpoint.host == "own"
    stage.leave()


def test_a_row_that_cannot_be_served_ends_its_sessions(stage: Stage) -> None:
    client = stage.client()
    stored(stage, replace(ACME, cluster_name="nowhere"))
    assert told(client) == [("57P03", 'tenant "acme" cannot be served now')]


def test_who_chooses_goes_on_for_others(stage: Stage) -> None:
    client = stage.chooser()
    client.says(encode.query(b"SET app.tenant_id = 'acme'"))
    client.reads()
    stored(stage, replace(ACME, active=False))
    end_unserved(client.session)
    client.says(encode.query(b"SELECT 1"))
    assert told(client) == [("42501", 'tenant "acme" is suspended')]
    client.says(encode.query(b"SET app.tenant_id = 'beta'"))
    assert client.kinds() == "CZ"
    stage.leave()


def test_a_tenant_that_is_gone_is_not_chosen_any_longer(stage: Stage) -> None:
    stored(stage, replace(ACME, tenant_code="stored"))
    client = stage.chooser()
    client.says(encode.query(b"SET app.tenant_id = 'stored'"))
    assert client.kinds() == "CZ"
    assert stage.registry.take_absence("stored")
    tenants_changed(stage.plane, frozenset({"stored"}))
    client.says(encode.query(b"SELECT 1"))
    assert told(client) == [("42501", 'tenant "stored" does not exist any more')]
    stage.leave()


def test_accounts_of_the_gone_are_dropped_and_of_others_when_there_are_too_many(stage: Stage) -> None:
    accounts = stage.plane.accounts
    stored(stage, replace(ACME, tenant_code="gone"))
    gone = stage.registry.known("gone")
    assert gone is not None
    accounts.account(gone)
    client = stage.client()
    forget_unused(stage.plane)
    assert [account.tenant.name for account in accounts] == ["gone", "acme"]
    stage.registry.take_absence("gone")
    forget_unused(stage.plane)
    assert [account.tenant.name for account in accounts] == ["acme"]
    for tenant in list(stage.registry.tenants()):
        accounts.account(tenant)
    forget_unused(stage.plane)
    assert len(accounts.names()) == 2
    assert "acme" in accounts
    assert client.session.account is accounts.account(client.session.tenant)
    stage.leave()


def test_without_a_registry_every_account_stays(stage: Stage) -> None:
    stage.registry.rows = None
    for tenant in list(stage.registry.tenants()):
        stage.plane.accounts.account(tenant)
    forget_unused(stage.plane)
    assert len(stage.plane.accounts.names()) == 3


def test_an_account_that_holds_what_was_granted_or_has_spent_of_its_rates_stays(stage: Stage) -> None:
    accounts = stage.plane.accounts
    stored(stage, replace(ACME, tenant_code="gone", max_connections=5))
    stored(stage, replace(ACME, tenant_code="rated", max_qps=5))
    for name in ("gone", "rated", "acme", "beta", "big"):
        tenant = stage.registry.known(name)
        assert tenant is not None
        accounts.account(tenant)
    stage.registry.take_absence("gone")
    held = next(account for account in accounts if account.tenant.name == "gone")
    leases = Leases(lambda _: None)
    held.servers.lender, held.servers.allowance = leases, 2
    forget_unused(stage.plane)
    assert {"gone", "rated"} <= set(accounts.names())
    held.servers.allowance = 0
    forget_unused(stage.plane)
    assert "gone" not in accounts
    assert "rated" in accounts
