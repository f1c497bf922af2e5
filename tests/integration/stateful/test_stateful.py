"""Random sessions of several tenants, interleaved over one or two server connections: each is answered what it is on a
connection of its own, has the same parameters, and leaves nothing to others.

TIERGATE_EXAMPLES=200 runs so many times more of them, and others each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.integration.servers import APP_PASSWORD, connect
from tests.integration.stateful.sides import Pair
from tests.integration.stateful.steps import BOUND, LEFT, SERVICE, Step, scripts
from tests.integration.tables import with_cluster
from tests.rawclient import RawClient
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Proxies = dict[str, tuple[int, "Proxy"]]  # by name, each with how many connections it has
EXAMPLES = examples(25)
ALONE, PROXIED = "stateful_alone", "stateful_proxied"
SCHEMA = """
CREATE TABLE ledger (
    id serial PRIMARY KEY, tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id', true), note text
);
INSERT INTO ledger (tenant_id, note) SELECT (ARRAY['std_1', 'std_2'])[n % 2 + 1], 'x' FROM generate_series(1, 10) n;
ALTER TABLE ledger ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON ledger USING (tenant_id = current_setting('app.tenant_id', true));
GRANT ALL ON ledger TO app, app_reader;
CREATE SEQUENCE other;
CREATE FUNCTION draw() RETURNS bigint LANGUAGE sql AS $$SELECT nextval('other')$$;
GRANT ALL ON SEQUENCE ledger_id_seq, other TO app, app_reader;
"""
# Who they are, and what their connections speak for from the start.
SESSIONS = (("app@std_1", BOUND, "std_1"), ("app@std_2", BOUND, "std_2"), ("app", SERVICE, "std_1"))


@pytest.fixture(scope="module")
def server(shared: EmbeddedServer) -> Iterator[EmbeddedServer]:
    with connect(shared, "postgres") as admin:
        admin.execute(f"CREATE DATABASE {ALONE}")
        with connect(shared, ALONE) as inside:
            inside.execute(SCHEMA.encode())
        admin.execute(f"CREATE DATABASE {PROXIED} TEMPLATE {ALONE}")
        yield shared
        for database in (ALONE, PROXIED):
            admin.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())


@pytest.fixture(scope="module")
def proxies(
    server: EmbeddedServer, start_module_proxy: StartProxy, all_tiers: dict[str, dict[str, Any]]
) -> Proxies:
    keeping = {"user.app": all_tiers["user.app"] | {"keep_sequences": True}}
    return {
        "one": (1, start_module_proxy(with_cluster(all_tiers, pool_size=1), default_tenant="std_1")),
        "two": (2, start_module_proxy(with_cluster(all_tiers, pool_size=2), default_tenant="std_1")),
        "keeping": (
            2,
            start_module_proxy(with_cluster(all_tiers, pool_size=2) | keeping, default_tenant="std_1"),
        ),
    }


@pytest.fixture(scope="module")
def admin(server: EmbeddedServer) -> Iterator[psycopg.Connection[Any]]:
    with connect(server, "postgres") as connection:
        yield connection


class Run:
    """One script: it is not said to a session that would have to wait."""

    def __init__(
        self, server: EmbeddedServer, proxy: Proxy, size: int, admin: psycopg.Connection[Any]
    ) -> None:
        self._server, self._proxy, self._size, self._admin = server, proxy, size, admin
        self.pairs = [self._pair(*session) for session in SESSIONS]
        self.said: list[tuple[int, Step]] = []

    def _pair(self, user: str, kind: str, tenant: str) -> Pair:
        def direct() -> RawClient:
            return RawClient(self._server.port).log_in(
                "app", ALONE, APP_PASSWORD, parameters={"options": f"-c app.tenant_id={tenant}"}
            )

        return Pair(
            self._proxy, kind, direct, lambda: RawClient(self._proxy.port).log_in(user, PROXIED, APP_PASSWORD)
        )

    def perform(self, script: list[tuple[int, Step]]) -> None:
        for who, step in script:
            pair = self.pairs[who]
            if not pair.may(step) or not (pair.holds() or self._free()):
                continue
            self.said.append((who, step))
            if step.kind == "leave":
                self._leave(pair, step.way)
                pair.enter()
            else:
                pair.do(step)

    def _free(self) -> bool:
        return sum(pair.holds() for pair in self.pairs) < self._size

    def _leave(self, pair: Pair, way: str) -> None:
        pid = pair.direct.pid
        pair.leave(way)
        wait_until(lambda: not self._rows("SELECT FROM pg_stat_activity WHERE pid = %s", pid))
        wait_until(lambda: self._locks(ALONE) == self._locks(PROXIED))

    def _locks(self, database: str) -> list[Any]:
        return self._rows(
            "SELECT objid FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE locktype = 'advisory' AND datname = %s ORDER BY 1",
            database,
        )

    def _rows(self, text: str, *values: object) -> list[Any]:
        return self._admin.execute(text.encode(), values).fetchall()

    def end(self) -> None:
        """Each session is at rest and still what it is alone; then they leave, and new ones find nothing of them."""
        holding = [pair for pair in self.pairs if pair.holds()]
        for pair in [*holding, *(pair for pair in self.pairs if pair not in holding)]:
            pair.do(Step("block", ("ROLLBACK", "SET default_transaction_read_only = off", *LEFT)))
            pair.same_notifications()
            self._leave(pair, "close")
        for pair in self.pairs:
            pair.enter()
            for text in LEFT:
                pair.compare(text)
            pair.leave("close")


@pytest.mark.timeout(240 + EXAMPLES)
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 25, database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)  # fmt: skip
@given(which=st.sampled_from(["one", "two", "two", "keeping"]), script=scripts(len(SESSIONS), 40))
def test_sessions_are_answered_as_on_connections_of_their_own(
    server: EmbeddedServer,
    proxies: Proxies,
    admin: psycopg.Connection[Any],
    which: str,
    script: list[tuple[int, Step]],
) -> None:
    size, proxy = proxies[which]
    run = Run(server, proxy, size, admin)
    try:
        run.perform(script)
        run.end()
    except AssertionError as failure:
        failure.add_note("\n".join(f"{who}: {step}" for who, step in run.said))
        raise
    finally:
        for pair in run.pairs:
            pair.leave("hang up")
