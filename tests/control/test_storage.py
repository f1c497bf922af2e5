"""What tenants store: by schema, by their rows in shared tables, and a cluster of one's own as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from proxy.cli.embedded import free_port
from proxy.control import storage
from proxy.control.metrics import exposition
from proxy.model import ServerOptions
from tests.control.api import calling
from tests.control.api.calling import Managed, call
from tests.integration.servers import connect

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy

NIGHT, DAY = datetime(2026, 5, 1, 3, tzinfo=UTC), datetime(2026, 5, 1, 12, tzinfo=UTC)
TABLES = """
CREATE ROLE meter LOGIN BYPASSRLS PASSWORD 'meter-secret';
GRANT pg_read_all_data TO meter;
CREATE SCHEMA globex;
CREATE TABLE globex.things AS SELECT n, repeat('x', 100) AS t, 'acme'::text AS tenant_id FROM generate_series(1, 20000) n;
CREATE TABLE shared_rows (tenant_id varchar(50), what text);
INSERT INTO shared_rows SELECT CASE WHEN n % 4 = 0 THEN 'acme' ELSE 'initech' END, repeat('y', 200)
FROM generate_series(1, 20000) n;
CREATE TABLE "odd ""name" (tenant_id uuid, what text);
CREATE DOMAIN disguised AS text;
CREATE TABLE of_a_strange_type (tenant_id disguised);
INSERT INTO of_a_strange_type SELECT 'acme' FROM generate_series(1, 50000);
ANALYZE;
"""


@pytest.fixture(scope="module")
def database(shared: EmbeddedServer) -> Iterator[str]:
    with connect(shared, "postgres") as admin:
        admin.execute("CREATE DATABASE stored")
    with connect(shared, "stored") as connection:
        connection.execute(TABLES.encode())
    yield "stored"
    with connect(shared, "postgres") as admin:
        admin.execute("DROP DATABASE stored WITH (FORCE)")
        admin.execute("DROP ROLE meter")


@pytest.fixture(scope="module")
def api(start_module_proxy: StartProxy, shared: EmbeddedServer, database: str) -> Iterator[Managed]:
    tables = calling.tables(shared)
    address = f"{shared.host}:{shared.port}"
    meter = {"storage_user": "meter", "storage_password": "meter-secret", "dbname": database}
    tables["cluster.shared"] |= meter
    tables["cluster.own"] = {"kind": "dedicated", "primary": address, "replicas": ["127.0.0.1:1"], **meter}
    tables["cluster.vip-1"] = {"kind": "vip", "coordinators": [address]}
    with calling.registry(shared) as dsn:
        managed = Managed(start_module_proxy(tables, http_addr=f"127.0.0.1:{free_port()}"), dsn, shared)
        for code, said in {
            "acme": {}, "globex": {}, "initech": {}, "nothing": {}, "big": {"tier": "enterprise"}, "vip": {"tier": "vip"}
        }.items():  # fmt: skip
            body = {"tenant_code": code, "tenant_name": code, "tier": "standard", **said}
            assert call(managed, "POST", "/v1/tenants", json=body).status_code == 201
        yield managed
        managed.close()


def measured(api: Managed, code: str) -> float:
    answer = call(api, "POST", f"/v1/tenants/{code}/storage", "operator")
    assert answer.status_code == 200, answer.text
    return float(answer.json()["storage_used_gb"]) * 2**30


def size(api: Managed, expression: str) -> int:
    assert api.server is not None
    with connect(api.server, "stored") as connection:
        row = connection.execute(f"SELECT {expression}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_by_schema_and_by_rows(api: Managed) -> None:
    table = size(api, "pg_total_relation_size('shared_rows')")
    assert measured(api, "globex") == size(api, "pg_total_relation_size('globex.things')")
    assert measured(api, "acme") == pytest.approx(table / 4, rel=0.02)
    assert measured(api, "initech") == pytest.approx(table * 3 / 4, rel=0.02)
    assert measured(api, "nothing") == 0


def test_a_cluster_of_ones_own_and_one_that_nobody_may_ask(api: Managed) -> None:
    assert measured(api, "big") == pytest.approx(size(api, "pg_database_size('stored')"), rel=0.05)
    refused = call(api, "POST", "/v1/tenants/vip/storage", "operator")
    assert (refused.status_code, "storage_user" in refused.json()["detail"]) == (409, True)
    assert call(api, "POST", "/v1/tenants/std_1/storage", "operator").status_code == 409  # of the file
    assert call(api, "POST", "/v1/tenants/acme/storage", "viewer").status_code == 403


def test_at_night_by_one_proxy(api: Managed) -> None:
    api.sql("DELETE FROM tenant_metrics_daily")
    api.sql(
        "INSERT INTO tenant_metrics_daily (tenant_id, metric_date, storage_used_gb)"
        " SELECT tenant_id, '2020-01-01', 0 FROM tenant_registry"
    )
    looks = [api.proxy.run(api.storage.look(when)) for when in (DAY, NIGHT, NIGHT)]
    assert looks == [False, True, False]
    rows = api.sql(
        "SELECT tenant_code, storage_used_gb > 0, storage_used_gb = storage_growth_gb FROM tenant_metrics_daily"
        " JOIN tenant_registry USING (tenant_id) WHERE metric_date > '2020-01-01' ORDER BY 1"
    )
    assert rows == [
        ("acme", True, True), ("big", True, True), ("globex", True, True), ("initech", True, True), ("nothing", False, True)
    ]  # fmt: skip


def test_who_does_not_come_to_an_end_leaves_the_night_to_the_next(api: Managed) -> None:
    night = datetime(2026, 5, 2, 3, tzinfo=UTC)
    assert api.proxy.run(api.store.claim(night.date(), timedelta(minutes=3)))  # and is killed
    assert not api.proxy.run(api.storage.look(night))
    api.sql(
        "UPDATE tiergate_registry.storage_day SET at = now() - interval '4 minutes' WHERE metric_date = '2026-05-02'"
    )
    api.proxy.run(api.store.go_on(night.date(), done=False))  # it was slow, not dead
    assert not api.proxy.run(api.storage.look(night))
    api.sql(
        "UPDATE tiergate_registry.storage_day SET at = now() - interval '4 minutes' WHERE metric_date = '2026-05-02'"
    )
    assert api.proxy.run(api.storage.look(night))
    assert not api.proxy.run(api.storage.look(night))
    assert api.sql(
        "SELECT at = 'infinity' FROM tiergate_registry.storage_day WHERE metric_date = '2026-05-02'"
    ) == [(True,)]


def test_metrics_tell_what_was_measured(api: Managed) -> None:
    measured(api, "acme")
    counts = api.proxy.run(api.worker.local.counts())
    counts["counters"]["tenants"]["acme"] = {
        "tier": "standard", "queries": 1, "durations": [0] * 17, "seconds": 0.0, "errors": {}, "bytes": 0, "throttled": 0,
        "throttled_seconds": 0.0, "refused": {},
    }  # fmt: skip
    counts["most"]["storage_used_gb"] = api.storage.used
    assert b'tenant_storage_used_gb{tenant_id="acme"}' in exposition(counts)


def test_a_night_that_broke_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_LOOKS", 0)
    looks = 0

    async def main() -> None:
        again = asyncio.Event()

        class Broken(storage.Storage):
            async def look(self, now: datetime) -> bool:
                nonlocal looks
                looks += 1
                if looks == 3:
                    again.set()
                raise ValueError("a bug")

        measuring = Broken(cast(Any, None), ServerOptions, cast(Any, None), lambda: "app.tenant_id")
        measuring.start()
        async with asyncio.timeout(10):
            await again.wait()
        await measuring.stop()

    asyncio.run(main())
    assert looks >= 3
