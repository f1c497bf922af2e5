"""The red team: every attempt of `attempts.py` and every race of `races.py`, without the seal and with it.

One server connection is shared by whoever attacks, the victim and an honest session of the attacker's own tenant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest

from tests.integration.attempts import (
    ATTEMPTS,
    CALLS,
    LEAKS,
    NOTHING,
    OWN,
    READ,
    SERVICE,
    UNCHOSEN,
    USER,
    Attempt,
    Step,
)
from tests.integration.sealed import KEY, SECRET, sealed_database
from tests.integration.servers import connect
from tests.integration.tables import with_cluster
from tests.integration.test_seal_attacks import ATTEMPTS as SEAL_ATTEMPTS
from tests.integration.test_seal_attacks import PLANTED
from tests.rawclient import Closed, Frame, RawClient, ServerError, error_fields, query, rows

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
DATABASE = "red_team"
OWNERS = ("std_1", "std_2", "free_1")
OTHERS = "another tenant's rows"

# What is planted beside `PLANTED`, of which the proxy cannot see what it does when it is used.
MORE = """
CREATE PROCEDURE nothing(text) LANGUAGE sql AS '';
CREATE TYPE evil.whom AS (tenant text);
CREATE FUNCTION evil.to_text(w evil.whom) RETURNS text LANGUAGE sql AS 'SELECT public.become(w.tenant)';
CREATE CAST (evil.whom AS text) WITH FUNCTION evil.to_text(evil.whom);
CREATE OPERATOR evil.@@@ (RIGHTARG = text, PROCEDURE = become);
CREATE VIEW evil.becomes AS SELECT become('std_2');
CREATE TABLE evil.door (tenant text);
CREATE RULE opens AS ON INSERT TO evil.door DO ALSO SELECT public.become(NEW.tenant);
CREATE TABLE evil.gate (tenant text);
CREATE FUNCTION evil.opens() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM public.become(NEW.tenant); RETURN NULL; END';
CREATE TRIGGER opens BEFORE INSERT ON evil.gate FOR EACH ROW EXECUTE FUNCTION evil.opens();
CREATE PROCEDURE evil.becoming(tenant text) LANGUAGE sql AS 'SELECT public.become(tenant)';
CREATE VIEW evil.pg_settings AS SELECT 'app.tenant_id'::text AS name;
CREATE FUNCTION evil.version() RETURNS text LANGUAGE plpgsql AS
    'BEGIN PERFORM public.become(''std_2''); RETURN (SELECT string_agg(item, '','') FROM public.plain); END';
CREATE FUNCTION evil.current_database() RETURNS text LANGUAGE plpgsql AS
    'BEGIN PERFORM public.become(''std_2''); RETURN (SELECT string_agg(item, '','') FROM public.sealed); END';
"""


def secret(tenant: str) -> bytes:
    """What stands in every row of the tenant and nowhere else."""
    return b"secret of " + tenant.encode()


class Side(NamedTuple):
    """A proxy and the table that it is to protect."""

    proxy: Proxy
    table: str
    admin: psycopg.Connection[Any]
    rows: str  # the digest of the victim's

    def enters(self, who: str) -> RawClient:
        """Raises ServerError."""
        name, _, said = who.partition("?")
        parameters = dict(part.split("=", 1) for part in said.split("&")) if said else None
        client = self.proxy.raw(name, DATABASE, parameters=parameters)
        if name == UNCHOSEN:
            return client
        if name == SERVICE and not said:
            client.checked(client.query("SET app.tenant_id = 'std_1'"))
        return client

    def victims(self) -> str:
        row = self.admin.execute(
            f"SELECT md5(string_agg(t::text, ';' ORDER BY id)) FROM {self.table} t WHERE tenant_id = 'std_2'".encode()
        ).fetchone()
        assert row is not None
        return str(row[0])

    def damaged(self) -> bool:
        """Whether the victim's rows are others than they were; they are put right."""
        if self.victims() == self.rows:
            return False
        self.admin.execute(f"TRUNCATE {self.table}; INSERT INTO {self.table} SELECT * FROM original".encode())
        return True


def ends(side: Side, frames: list[Frame]) -> str:
    said = b"".join(frame.body for frame in frames)
    if secret("std_2") in said or side.damaged():
        return LEAKS
    errors = [error_fields(frame.body) for frame in frames if frame.kind == "E"]
    if errors:
        return "; ".join(
            f"{e['C']}: {e['M']}: {e['D']}" if "D" in e else f"{e['C']}: {e['M']}" for e in errors
        )
    return OTHERS if secret("free_1") in said else OWN if secret("std_1") in said else NOTHING


def awaited(data: bytes) -> int:
    """How many ReadyForQuery answer these messages."""
    count = at = 0
    while at < len(data):
        count += data[at] in b"QSF"
        at += 1 + int.from_bytes(data[at + 1 : at + 5], "big")
    return count


def made(side: Side, steps: tuple[Step, ...], who: str) -> list[Frame]:
    """All that the attacker gets to see."""
    found: list[Frame] = []
    try:
        client = side.enters(who)
    except ServerError as refused:
        return refused.frames
    if not any("{t}" in step if isinstance(step, str) else b"{t}" in step("{t}") for step in steps):
        steps += (READ,)
    try:
        for step in steps:
            data = query(step.replace("{t}", side.table)) if isinstance(step, str) else step(side.table)
            found += client.ask(data, awaited(data))
    except Closed as closed:
        found += closed.frames
    finally:
        client.close()
    return found


def untouched(side: Side) -> None:
    """On the same server connection others see what is theirs, and all of it."""
    for user, tenant in (("app@std_2", "std_2"), (USER, "std_1"), ("app@free_1", "free_1")):
        with side.proxy.raw(user, DATABASE) as client:
            read = f"SELECT min(tenant_id), max(tenant_id), count(*) FROM {side.table}"
            assert rows(client.checked(client.query(read))) == [[tenant, tenant, "100"]]


@pytest.fixture(scope="module")
def field(shared: EmbeddedServer) -> Iterator[psycopg.Connection[Any]]:
    with sealed_database(shared, DATABASE):
        with connect(shared, DATABASE, "app") as app:
            app.execute(PLANTED.encode())
            app.execute(MORE.encode())
        with connect(shared, DATABASE) as admin:
            for table in ("plain", "sealed"):
                admin.execute(f"UPDATE {table} SET item = 'secret of ' || tenant_id || ' ' || id".encode())
            admin.execute("CREATE TABLE original AS SELECT * FROM plain; ANALYZE")
            for name, oid in admin.execute(
                "SELECT proname, oid FROM pg_proc WHERE proname = 'become' AND pronargs = 1"
            ):
                CALLS[name] = oid
            yield admin


def configured(all_tiers: Tables, **cluster: Any) -> Tables:
    own = {"password": "app-secret", "server_user": "app", "server_password": "app-secret"}
    return with_cluster(all_tiers, pool_size=1, **cluster) | {
        f"user.{USER}": own | {"tenants": ["std_1"]},
        f"user.{SERVICE}": own | {"tenants": ["std_1", "free_1"]},
        f"user.{UNCHOSEN}": own | {"tenants": ["std_1", "free_1"]},
    }


@pytest.fixture(scope="module", params=["without the seal", "with the seal"])
def side(
    request: pytest.FixtureRequest,
    start_module_proxy: StartProxy,
    all_tiers: Tables,
    field: psycopg.Connection[Any],
) -> Side:
    sealed = request.param == "with the seal"
    keys = {"seal_keys": [f"{KEY}:{SECRET}"]} if sealed else {}
    found = Side(
        start_module_proxy(configured(all_tiers, **keys)), "sealed" if sealed else "plain", field, ""
    )
    return found._replace(rows=found.victims())


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt(side: Side, name: str) -> None:
    attempt: Attempt = ATTEMPTS[name]
    end = ends(side, made(side, attempt.steps, attempt.who))
    wanted = attempt.plain if side.table == "plain" else attempt.sealed
    assert wanted in end, end
    untouched(side)
