"""Who waits for a server connection, in the order in which they are served, or for its tenant's rate, and why each is where
it is."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from proxy.admission.accounts import Account
from proxy.admission.gate import Gate
from proxy.admission.lines import Line
from proxy.admission.queue import ENTITLED
from proxy.admission.turns import ROUNDS
from proxy.client.plane import Plane
from proxy.control.views.view import Value, View, split_microseconds
from proxy.server.pool import Pool

Shares = dict[str, float]


def queue(plane: Plane) -> View:
    columns = (
        "cluster", "database", "user", "place", "tenant", "tier", "weight", "waiting", "wait", "wait_us", "owes_ms",
        "guaranteed", "why",
    )  # fmt: skip
    now = monotonic()
    rows = [row for pool in plane.pools if pool.queue for row in _rows(pool, now)]
    rows += [_rated(account, gate, now) for account, gate in _crowded(plane)]
    return View(columns, rows)


def _crowded(plane: Plane) -> Iterator[tuple[Account, Gate]]:
    """The gates at which somebody waits."""
    for account in plane.accounts:
        if account.gate is not None and account.gate.waiting:
            yield account, account.gate


def _rated(account: Account, gate: Gate, now: float) -> tuple[Value, ...]:
    tenant, weight = account.tenant, account.tier.tier.weight
    limit, delay = gate.held_by(now)
    why = f"over its {limit}; the next goes in {delay:.2f} s"
    waited = now - next(iter(gate.waiting.values()))
    return (
        tenant.cluster, None, None, None, tenant.name, tenant.tier, weight, len(gate.waiting),
        *split_microseconds(waited), 0, 0, why,
    )  # fmt: skip


def _rows(pool: Pool, now: float) -> list[tuple[Value, ...]]:
    rows: list[tuple[Value, ...]] = []
    in_turn = [line for line in pool.queue.in_turn() if not _full(line)]
    aside = [line for line in pool.queue.lines() if line.turns is None or _full(line)]
    for place, line in [*enumerate(in_turn, 1), *((None, line) for line in aside)]:
        account, standing = line.account, line.standing
        weight = account.tier.tier.weight
        worth = weight * standing.part
        waiters = list(line)
        oldest = max(now - waiter.waiting_since for waiter in waiters)
        owes = max(0.0, standing.due - standing.rota.now) / ROUNDS * worth
        guaranteed = line.group.guarantee.amount if line.group is not None else 0
        rows.append(
            (
                pool.key.cluster, pool.key.database, pool.key.user, place, account.tenant.name, account.tenant.tier,
                weight, len(waiters), *split_microseconds(oldest), int(owes * 1000), guaranteed,
                _why(pool, line, place, owes),
            )
        )  # fmt: skip
    return rows


def _full(line: Line) -> list[str]:
    """The caps at which the tenant is, also if it has not stepped aside yet."""
    counters = (line.account.servers, line.account.tier.servers)
    return [counter.name for counter in counters if counter.full]


def _why(pool: Pool, line: Line, place: int | None, owes: float) -> str:
    if pool.paused:
        return "the cluster is paused"
    if place is None:
        refusing = {s.counter.name for s in line.seekers.values() if s.counter is not None}
        return f"at its cap: {', '.join(sorted(refusing.union(_full(line))))}"
    if line.group is not None and line.group.round == ENTITLED:
        guarantee = line.group.guarantee
        return f"entitled: has {guarantee.used} of {guarantee.amount} that are guaranteed"
    said = []
    if place == 1:
        said.append("next")
        if pool.claim.counter is not None:
            said.append(f"the pool waits for {pool.claim.counter.name}")
    if owes >= 0.001:
        said.append(f"has used {owes * 1000:.0f} ms more of the servers than its share")
    if pool.idle and pool.kept.count:
        said.append("what is idle is kept for those who are guaranteed it")
    return "; ".join(said) or "others of the same round asked before"


def due(plane: Plane) -> Shares:
    """By tenant: how many connections of its cluster's its weight is worth among those who use or want some now."""
    weights: dict[str, float] = {}
    wanting = [account for account in plane.accounts if account.servers.used or account.waiting]
    for account in wanting:
        cluster = account.tenant.cluster
        weights[cluster] = weights.get(cluster, 0.0) + _worth(plane, account)
    shares = {}
    for account in wanting:
        cluster = account.tenant.cluster
        share = _worth(plane, account) / weights[cluster]
        shares[account.tenant.name] = round(_most(plane, cluster) * share, 1)
    return shares


def _worth(plane: Plane, account: Account) -> float:
    """Its weight, or the part of it that it has here."""
    rota = plane.pools.room.cluster(account.tenant.cluster).rota
    part: float = rota.standing(account).part if rota is not None else 1.0
    return account.tier.tier.weight * part


def _most(plane: Plane, name: str) -> int:
    """Connections that this process may have to a cluster."""
    counter, cluster = plane.pools.room.cluster(name), plane.registry.cluster(name)
    if counter.limit:
        return counter.allowance
    return cluster.pool_size if cluster is not None else 0


def places(plane: Plane) -> dict[int, int]:
    """By the id of who waits: how many of its tenant are served before it, and itself."""
    found = {id(waiter): n for _, gate in _crowded(plane) for n, waiter in enumerate(gate.waiting, 1)}
    return found | {
        id(waiter): place
        for pool in plane.pools
        if pool.queue
        for line in pool.queue.lines()
        for place, waiter in enumerate(line.in_order(), 1)
    }
