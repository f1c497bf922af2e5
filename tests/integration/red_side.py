"""One side of the red team's field: a proxy, the table that it is to protect, and what is seen of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from tests.integration.attempts import LEAKS, NOTHING, OWN, READ, SERVICE, Step
from tests.rawclient import Closed, Frame, RawClient, ServerError, error_fields, query

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.integration.running import Proxy

DATABASE = "red_team"
OWNERS = ("std_1", "std_2", "free_1")
OTHERS = "another tenant's rows"


def secret(tenant: str) -> bytes:
    """What stands in every row of the tenant and nowhere else."""
    return b"secret of " + tenant.encode()


class Side(NamedTuple):
    server: EmbeddedServer
    proxy: Proxy
    table: str
    admin: psycopg.Connection[Any]
    rows: str  # the digest of the victim's
    honest: dict[str, RawClient]  # sessions of each tenant

    def enters(self, who: str) -> RawClient:
        """Raises ServerError."""
        name, _, said = who.partition("?")
        parameters = dict(part.split("=", 1) for part in said.split("&")) if said else None
        client = self.proxy.raw(name, DATABASE, parameters=parameters)
        if who == SERVICE:
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

    def untouched(self) -> None:
        """On the same server connection others see what is theirs, and all of it."""
        for tenant, client in self.honest.items():
            read = f"SELECT min(tenant_id), max(tenant_id), count(*) FROM {self.table}"
            assert client.rows(read) == [[tenant, tenant, "100"]]


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


def sent(step: Step, table: str) -> bytes:
    return query(step.replace("{t}", table)) if isinstance(step, str) else step(table)


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
            data = sent(step, side.table)
            found += client.ask(data, awaited(data))
    except Closed as closed:
        found += closed.frames
    finally:
        client.close()
    return found


def leaves(side: Side, steps: tuple[Step, ...], hears: str | None) -> None:
    """The victim does something and goes."""
    client = side.enters("app@std_2")
    for number, step in enumerate(steps, 1):
        data = sent(step, side.table)
        if hears is None or number < len(steps):
            client.checked(client.ask(data, awaited(data)))
            continue
        client.send(data)
        if hears:
            client.read_until(hears)
        client.hang_up()
        return
    client.close()
