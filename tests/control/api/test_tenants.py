"""Tenants by HTTP: made, listed, changed, moved and deleted in a real registry, each change once and in the audit."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from proxy import log
from proxy.cli.embedded import free_port
from tests.control.api import calling
from tests.control.api.calling import ID, Managed, call

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy


@pytest.fixture(scope="module")
def dsn(shared: EmbeddedServer) -> Iterator[str]:
    with calling.registry(shared) as found:
        yield found


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, shared: EmbeddedServer) -> Proxy:
    """Two shards of vip with two tenants each, three tenants of enterprise at most, one dedicated cluster."""
    address = f"{shared.host}:{shared.port}"
    tables = calling.tables(shared)
    tables |= {
        "cluster.ent": {"kind": "dedicated", "primary": address},
        "cluster.vip-1": {"kind": "vip", "coordinators": [address]},
        "cluster.vip-2": {"kind": "vip", "coordinators": [address]},
        "tier.vip": {"max_tenants": 4, "default_shards": 2},
        "tier.enterprise": {"max_tenants": 3},
        "tier.vip.redis": {
            "hosts": ["redis-vip"],
            "password": "redis-secret",
            "url": "redis://u:redis-secret@r/0",
        },
        "tier.standard.redis": {"cluster_hosts": ["redis-of-all"]},
        "tier.vip.kafka": {"hosts": ["kafka-1"], "priority": "high"},
        "tenant.std_1.redis": {"hosts": ["redis-own"], "tls": {"port": 6380, "private_key": "k"}},
    }
    return start_module_proxy(tables, http_addr=f"127.0.0.1:{free_port()}")


@pytest.fixture(scope="module")
def managed(proxy: Proxy, dsn: str) -> Iterator[Managed]:
    found = Managed(proxy, dsn)
    yield found
    found.close()


@pytest.fixture
def api(managed: Managed) -> Managed:
    managed.sql("TRUNCATE tenant_registry, tiergate_registry.audit, tiergate_registry.requests CASCADE")
    return managed


def create(api: Managed, code: str = "acme", *, key: str = "", **said: Any) -> httpx.Response:
    body = {"tenant_code": code, "tenant_name": code.title(), "tier": "standard", **said}
    return call(api, "POST", "/v1/tenants", json=body, headers={"Idempotency-Key": key} if key else None)


def wrong(answer: httpx.Response) -> tuple[int, str | None]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    return answer.status_code, problem.get("field")


def change(api: Managed, path: str, method: str = "PATCH", match: str = "*", **said: Any) -> httpx.Response:
    return call(api, method, f"/v1/tenants/{path}", json=said, headers={"If-Match": match})


def audited(api: Managed) -> list[tuple[str, str]]:
    return [(row["actor"], row["action"]) for row in call(api, "GET", "/v1/audit").json()["items"][::-1]]


def test_create_and_read(api: Managed) -> None:
    made = create(api, max_qps=50, max_connections=None)
    assert made.status_code == 201
    tenant = made.json()
    assert tenant.items() >= {
        "tenant_code": "acme", "tier": "standard", "state": "active", "source": "registry", "cluster": "shared",
        "cluster_name": "shared", "max_qps": 50, "max_connections": None, "query_timeout_ms": 30000,
        "created_by": "admin", "version": 1,
    }.items()  # fmt: skip
    assert made.headers["location"] == f"/v1/tenants/{tenant['tenant_id']}"
    for name in ("acme", tenant["tenant_id"], tenant["tenant_id"].upper()):
        shown = call(api, "GET", f"/v1/tenants/{name}", "viewer")
        assert (shown.json(), shown.headers["etag"]) == (tenant, '"1"')
    assert wrong(call(api, "GET", "/v1/tenants/nobody", "viewer")) == (404, "tenant")


def test_tenants_of_the_file_are_shown_and_not_changed(api: Managed) -> None:
    shown = call(api, "GET", f"/v1/tenants/{ID}", "viewer")
    assert shown.json().items() >= {"tenant_code": "std_2", "source": "file", "cluster": "shared"}.items()
    assert "etag" not in shown.headers
    assert wrong(change(api, "std_2", max_qps=1)) == (409, None)
    assert wrong(change(api, "std_2", "DELETE")) == (409, None)


def test_the_registry_goes_before_the_file(api: Managed) -> None:
    create(api, "std_1", tenant_name="Of the registry")
    assert call(api, "GET", "/v1/tenants/std_1").json()["tenant_name"] == "Of the registry"


def test_who_is_there_already(api: Managed) -> None:
    tenant = create(api).json()
    assert wrong(create(api)) == (409, "tenant_code")
    assert wrong(create(api, "other", tenant_id=tenant["tenant_id"])) == (409, "tenant_id")


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"tier": "gold"}, "tier"),
        ({"tenant_code": "a b"}, "tenant_code"),
        ({"tenant_code": ID}, "tenant_code"),
        ({"max_qps": -1}, "max_qps"),
        ({"max_qps": 2**31}, "max_qps"),
        ({"color": "red"}, "color"),
        ({"cluster_name": "nowhere"}, "cluster_name"),
        ({"shard_id": 9}, "shard_id"),
        ({"tier": "enterprise", "primary_endpoint": "a/b:c"}, "primary_endpoint"),
        ({"primary_endpoint": "a", "coordinator_endpoints": ["b"]}, "primary_endpoint"),
        ({"replica_endpoints": ["a"]}, "replica_endpoints"),
        ({"min_connections": 5, "max_connections": 4}, "min_connections"),
        ({"min_connections": 11}, "min_connections"),  # the table's default is 10
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"tenant_name": "a\0b"}, "tenant_name"),
    ],
)
def test_a_problem_names_its_field(api: Managed, said: dict[str, Any], field: str) -> None:
    assert wrong(create(api, **said)) == (422, field)
    assert audited(api) == []


def test_list_by_pages(api: Managed) -> None:
    codes = ["a", "Z", "b-1", "b.2", "c", "B", "d"]
    for code in codes:
        create(api, code, tier="free" if code == "c" else "standard")
    found, cursor, pages = [], "", 0
    while cursor is not None:
        page = call(api, "GET", f"/v1/tenants?limit=3&cursor={cursor}", "viewer").json()
        found += [tenant["tenant_code"] for tenant in page["items"]]
        cursor, pages = page["next"], pages + 1
    assert (found, pages) == (sorted(codes), 3)
    assert wrong(call(api, "GET", "/v1/tenants?cursor=%00")) == (422, "cursor")


def test_a_filter_that_is_misspelt_does_not_mean_all(api: Managed) -> None:
    assert wrong(call(api, "GET", "/v1/tenants?shard=1")) == (422, "shard")
    assert call(api, "GET", "/readyz?of=a-probe").status_code == 200


def test_what_is_no_json_is_the_bodys_fault(api: Managed) -> None:
    answer = call(api, "POST", "/v1/tenants", content="{bad", headers={"Content-Type": "application/json"})
    assert wrong(answer) == (422, "body")


def test_list_by_what_they_are(api: Managed) -> None:
    create(api, "s1")
    create(api, "v1", tier="vip")
    create(api, "v2", tier="vip", shard_id=2)
    create(api, "old", tier="free", expires_at="2020-01-01T00:00:00Z")
    call(api, "POST", "/v1/tenants/s1/suspend", "operator")

    def listed(query: str) -> list[str]:
        items = call(api, "GET", f"/v1/tenants?{query}", "viewer").json()["items"]
        return [tenant["tenant_code"] for tenant in items]

    assert listed("tier=vip") == ["v1", "v2"]
    assert listed("shard_id=2") == ["v2"]
    create(api, "own", tier="enterprise", primary_endpoint="db1:5433")
    api.sql(
        "INSERT INTO tenant_registry (tenant_id, tenant_code, tenant_name, tier, cluster_endpoint_type)"
        " VALUES (gen_random_uuid(), 'unsaid', 'x', 'standard', 'shared_pool')"
    )
    everyone = call(api, "GET", "/v1/tenants", "viewer").json()["items"]
    for cluster in ("shared", "vip-1", "vip-2"):
        served = [tenant["tenant_code"] for tenant in everyone if tenant["cluster"] == cluster]
        assert listed(f"cluster_name={cluster}") == served
        assert served
    assert listed("cluster_name=own") == listed("cluster_name=nowhere") == []
    api.sql("DELETE FROM tenant_registry WHERE tenant_code IN ('own', 'unsaid')")
    assert [listed(f"state={state}") for state in ("active", "suspended", "expired")] == [
        ["v1", "v2"], ["s1"], ["old"]
    ]  # fmt: skip
    assert listed("source=file") == ["free_1", "std_1", "std_2"]
    assert listed("source=file&tier=free") == ["free_1"]


def test_a_page_is_read_off_an_index(api: Managed) -> None:
    api.sql(
        "INSERT INTO tenant_registry (tenant_id, tenant_code, tenant_name, tier, cluster_endpoint_type)"
        " SELECT gen_random_uuid(), 't' || n, 'x', 'standard', 'shared_pool' FROM generate_series(1, 5000) n"
    )
    api.sql("ANALYZE tenant_registry")
    plan = api.sql(
        "EXPLAIN SELECT * FROM tenant_registry t WHERE t.tenant_code COLLATE \"C\" > 't3'::text"
        ' ORDER BY t.tenant_code COLLATE "C" LIMIT 100'
    )
    assert "idx_tenant_registry_listed" in str(plan)


def test_changes_are_of_what_was_seen(api: Managed) -> None:
    create(api)
    assert wrong(call(api, "PATCH", "/v1/tenants/acme", json={"max_qps": 1})) == (428, "If-Match")
    changed = change(api, "acme", match='"1"', max_qps=7, tenant_name="Acme Inc", query_timeout_ms=None)
    assert (
        changed.json().items() >= {"max_qps": 7, "tenant_name": "Acme Inc", "query_timeout_ms": None}.items()
    )
    assert changed.headers["etag"] == '"2"'
    assert wrong(change(api, "acme", match='"1"', max_qps=8)) == (412, "If-Match")
    assert wrong(change(api, "acme", "DELETE", match='"1"')) == (412, "If-Match")
    assert wrong(change(api, "acme", match="2", max_qps=8)) == (422, "If-Match")
    assert wrong(change(api, "acme", tenant_name=None)) == (422, "tenant_name")
    assert wrong(change(api, "acme", min_connections=11)) == (422, "min_connections")
    assert change(api, "acme", max_qps=7).headers["etag"] == '"2"'  # nothing has changed
    assert wrong(change(api, "nobody", max_qps=7)) == (404, "tenant")


def test_of_several_changes_of_one_version_one_is_done(api: Managed) -> None:
    create(api)
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda n: change(api, "acme", match='"1"', max_qps=n + 1), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 5
    assert len(audited(api)) == 2


def test_suspend_and_resume(api: Managed) -> None:
    create(api)
    for verb, state, version in (
        ("suspend", "suspended", 2),
        ("suspend", "suspended", 2),
        ("resume", "active", 3),
    ):
        tenant = call(api, "POST", f"/v1/tenants/acme/{verb}", "operator").json()
        assert (tenant["state"], tenant["version"]) == (state, version)
    assert [action for _, action in audited(api)] == ["create", "suspend", "resume"]


def test_delete(api: Managed) -> None:
    tenant = create(api).json()
    api.sql(
        "INSERT INTO tenant_metrics_daily (tenant_id, metric_date) VALUES (%s, now())", tenant["tenant_id"]
    )
    assert wrong(change(api, "acme", "DELETE")) == (409, "with_usage")
    assert change(api, "acme?with_usage=true", "DELETE").status_code == 204
    assert wrong(change(api, "acme", "DELETE")) == (404, "tenant")
    assert api.sql("SELECT count(*) FROM tenant_metrics_daily") == [(0,)]
    newest = call(api, "GET", "/v1/audit?tenant=acme").json()["items"][0]
    assert (newest["action"], newest["before"]["tenant_name"], newest["after"]) == ("delete", "Acme", None)


def test_the_emptiest_shard_until_all_are_full(api: Managed) -> None:
    shards = [create(api, f"v{n}", tier="vip").json()["shard_id"] for n in range(4)]
    assert shards == [1, 2, 1, 2]
    assert wrong(create(api, "v5", tier="vip")) == (409, "tier")  # max_tenants
    change(api, "v3", "DELETE")
    assert wrong(create(api, "v5", tier="vip", shard_id=1)) == (409, "shard_id")
    assert create(api, "v5", tier="vip", shard_id=2).status_code == 201


def test_the_last_place_is_given_once(api: Managed) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: create(api, f"v{n}", tier="vip"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [409] * 4
    assert api.sql("SELECT shard_id, count(*) FROM tenant_registry GROUP BY 1 ORDER BY 1") == [(1, 2), (2, 2)]


def test_tiers_up_and_down(api: Managed) -> None:
    create(api)

    def tier(name: str, **target: Any) -> dict[str, Any]:
        answer = change(api, "acme/tier", "POST", tier=name, **target)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    assert tier("free").items() >= {"tier": "free", "cluster": "shared", "version": 2}.items()
    assert tier("vip").items() >= {"cluster": "vip-1", "shard_id": 1, "cluster_name": None}.items()
    assert tier("vip", shard_id=2)["cluster"] == "vip-2"
    assert tier("vip")["version"] == 4  # it stays
    assert tier("enterprise").items() >= {"cluster": "ent", "shard_id": None}.items()
    own = tier("enterprise", primary_endpoint="db1:5433", replica_endpoints=["db2"])
    assert own.items() >= {"cluster": "acme", "cluster_name": None, "primary_endpoint": "db1:5433"}.items()
    assert tier("standard").items() >= {"cluster": "shared", "primary_endpoint": None}.items()
    assert wrong(change(api, "acme/tier", "POST", tier="vip", shard_id=3)) == (422, "shard_id")
    assert wrong(call(api, "POST", "/v1/tenants/acme/tier", json={"tier": "vip"})) == (428, "If-Match")


def test_a_dedicated_cluster_is_chosen_once(api: Managed) -> None:
    assert create(api, "one", tier="enterprise").json()["cluster"] == "ent"
    assert wrong(create(api, "two", tier="enterprise")) == (409, "primary_endpoint")
    assert create(api, "two", tier="enterprise", cluster_name="ent").status_code == 201


def test_an_idempotency_key(api: Managed) -> None:
    first, again = create(api, key="k1", max_qps=3), create(api, key="k1", max_qps=3)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert wrong(create(api, key="k1", max_qps=4)) == (422, "Idempotency-Key")
    assert wrong(create(api, key="k2")) == (409, "tenant_code")
    assert create(api, "other", key="k2").status_code == 201  # what failed has left no answer
    assert len(audited(api)) == 2
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: create(api, "third", key="k3").json(), range(5)))
    assert len({answer["tenant_id"] for answer in answers}) == 1


def test_every_change_is_told_to_registry_and_log(api: Managed) -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    try:
        create(api)
        change(api, "acme", max_qps=9)
    finally:
        log.configure("console", "warning")
    rows = call(api, "GET", "/v1/audit?limit=1").json()
    (newest,) = rows["items"]
    assert (newest["actor"], newest["before"]["max_qps"], newest["after"]["max_qps"]) == ("admin", None, 9)
    older = call(api, "GET", f"/v1/audit?before={rows['next']}").json()
    assert [row["action"] for row in older["items"]] == ["create"]
    assert older["next"] is None
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [event for event in events if event["event"] == "tenant changed"]
    assert [event["action"] for event in told] == ["create", "change"]
    assert (told[1]["before"]["max_qps"], told[1]["after"]["max_qps"], told[1]["actor"]) == (None, 9, "admin")
    assert "tier" not in told[1]["after"]


def test_a_tenants_administrator_and_the_registry(api: Managed) -> None:
    create(api, "std_1")
    assert call(api, "GET", "/v1/tenants/std_1", "tenant-admin").status_code == 200
    assert call(api, "GET", "/v1/tenants/std_1/usage", "tenant-admin").json() == {"items": []}
    create(api, "acme")
    for other in ("acme", "nobody"):
        assert call(api, "GET", f"/v1/tenants/{other}", "tenant-admin").status_code == 403
    assert change(api, "std_1", max_qps=1).status_code == 200
    answer = call(
        api, "PATCH", "/v1/tenants/std_1", "tenant-admin", json={"max_qps": 9}, headers={"If-Match": "*"}
    )
    assert answer.status_code == 403


def test_resources(api: Managed, shared: EmbeddedServer) -> None:
    identity = create(api, "acme", tier="vip").json()["tenant_id"]
    found = call(api, "GET", "/v1/tenants/acme/resources", "viewer").json()
    assert found == {
        "tenant_id": identity,
        "tenant_code": "acme",
        "tier": "vip",
        "postgresql": {
            "cluster": "vip-1", "cluster_type": "vip", "primary": None, "read_replicas": [],
            "coordinator_hosts": [f"{shared.host}:{shared.port}"], "dbname": None,
        },
        "redis": {"hosts": ["redis-vip"], "url": "redis://u@r/0", "key_prefix": f"{identity}:"},
        "clickhouse": None,
        "kafka": {"hosts": ["kafka-1"], "priority": "high"},
    }  # fmt: skip
    own = call(api, "GET", "/v1/tenants/std_1/resources", "tenant-admin").json()
    assert own["redis"] == {"hosts": ["redis-own"], "tls": {"port": 6380}, "key_prefix": "std_1:"}
    change(api, "acme/tier", "POST", tier="enterprise", primary_endpoint="db1:5433")
    moved = call(api, "GET", "/v1/tenants/acme/resources").json()
    assert (moved["postgresql"]["primary"], moved["redis"]) == ("db1:5433", None)


def test_usage(api: Managed) -> None:
    identity = create(api).json()["tenant_id"]
    api.sql(
        "INSERT INTO tenant_metrics_daily (tenant_id, metric_date, db_query_count) SELECT %s, d, 5"
        " FROM generate_series('2026-01-01'::date, '2026-01-09', '1 day') d",
        identity,
    )
    path = "/v1/tenants/acme/usage?from=2026-01-03&to=2026-01-05"
    days = call(api, "GET", path, "viewer").json()["items"]
    assert [(day["metric_date"], day["db_query_count"]) for day in days] == [
        ("2026-01-03", 5), ("2026-01-04", 5), ("2026-01-05", 5)
    ]  # fmt: skip


def test_a_row_that_cannot_be_served_says_why(api: Managed) -> None:
    create(api)
    api.sql("UPDATE tenant_registry SET cluster_name = 'gone'")
    tenant = call(api, "GET", "/v1/tenants/acme").json()
    assert (tenant["cluster"], tenant["problem"]) == (None, 'no cluster is called "gone"')


def test_without_a_registry(proxy: Proxy) -> None:
    listed = call(proxy, "GET", "/v1/tenants").json()
    assert [tenant["tenant_code"] for tenant in listed["items"]] == ["free_1", "std_1", "std_2"]
    assert call(proxy, "GET", "/v1/tenants?limit=2").json()["next"] is not None
    assert call(proxy, "GET", "/v1/tenants/std_1").json()["source"] == "file"
    said = {"tenant_code": "x", "tenant_name": "X", "tier": "free"}
    answer = call(proxy, "POST", "/v1/tenants", json=said)
    assert wrong(answer) == (501, None)
    assert "registry_dsn" in answer.json()["hint"]
    match = {"If-Match": "*"}
    assert wrong(call(proxy, "PATCH", "/v1/tenants/std_1", json={}, headers=match)) == (501, None)
    assert wrong(call(proxy, "POST", "/v1/tenants/std_1/suspend", "operator")) == (501, None)


def test_a_registry_that_does_not_answer(proxy: Proxy) -> None:
    api = Managed(proxy, f"postgresql://postgres@127.0.0.1:{free_port()}/none")
    try:
        assert wrong(call(api, "GET", "/v1/tenants")) == (503, None)
        assert wrong(call(api, "GET", "/v1/tenants/nobody")) == (503, None)
        assert call(api, "GET", "/v1/tenants/std_1").status_code == 200  # of the file
        assert wrong(call(api, "GET", "/v1/tenants/std_1", "tenant-admin")) == (503, None)
    finally:
        api.close()


def test_tables_that_were_made_by_hand(proxy: Proxy, shared: EmbeddedServer) -> None:
    with calling.database(shared) as dsn:
        api = Managed(proxy, dsn)
        try:
            api.sql(calling.BY_HAND)
            api.sql(
                "INSERT INTO tenant_registry (tenant_id, tenant_code, tenant_name, tier, cluster_endpoint_type)"
                " VALUES (gen_random_uuid(), 'old', 'Old', 'standard', 'shared_pool')"
            )
            shown = call(api, "GET", "/v1/tenants/old")
            assert (shown.status_code, "etag" in shown.headers, shown.json()["cluster"]) == (
                200,
                False,
                "shared",
            )
            assert wrong(change(api, "old", match='"1"', max_qps=1)) == (412, "If-Match")
            answer = change(api, "old", max_qps=1)
            assert wrong(answer) == (503, None)
            assert answer.json()["hint"] == "tiergate sql install --registry"
        finally:
            api.close()


def test_a_database_without_the_tables(proxy: Proxy, shared: EmbeddedServer) -> None:
    api = Managed(proxy, f"postgresql://postgres@127.0.0.1:{shared.port}/postgres")
    try:
        answer = call(api, "GET", "/v1/tenants")
        assert wrong(answer) == (503, None)
        assert answer.json()["hint"] == "tiergate sql install --registry"
    finally:
        api.close()
