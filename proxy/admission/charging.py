"""What a tenant is charged for the time its transactions have a server connection (see turns.py).

It is charged wherever somebody waits: for the connections of a cluster (`rota`), and for each of the `counters` that
several tenants share. Each is told apart, since who has had much of one thing may have had little of another.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy.admission.accounts import Account, Accounts, Counter
from proxy.admission.turns import Rota, expected

_UNKNOWN = 0.001  # seconds that a tenant's first transaction is thought to take


def begin(account: Account, rota: Rota, counters: Iterable[Counter]) -> float:
    """It is lent a connection: charges what is expected, and returns it."""
    seconds = account.expected or _UNKNOWN
    weight = account.tier.tier.weight
    standing = rota.standing(account)
    if not standing.places:
        standing.begin()
    standing.charge(seconds, weight)
    for counter in counters:
        if counter.rota is not None and counter.attended:
            standing = counter.rota.standing(account)
            if not standing.places:
                standing.begin()
            counter.rota.serve(standing)
            standing.charge(seconds, weight)
    return seconds


def correct(account: Account, rota: Rota, counters: Iterable[Counter], seconds: float) -> None:
    """It has taken so much more, or less, than it was charged."""
    weight = account.tier.tier.weight
    rota.standing(account).charge(seconds, weight)
    for counter in counters:
        if counter.rota is not None and counter.attended:
            counter.rota.standing(account).charge(seconds, weight)


def end(account: Account, rota: Rota, counters: Iterable[Counter], charged: float, seconds: float) -> None:
    """It gives the connection back after so many seconds; `charged` is 0 if nobody waited when it was lent."""
    account.expected = expected(account.expected, seconds)
    if not charged:
        charged = begin(account, rota, counters)
    correct(account, rota, counters, seconds - charged)


def rest(accounts: Accounts) -> None:
    """To be called about once a second: where nobody waits for a cap, who has had how much of it is forgotten."""
    counters = [each.servers for each in accounts.tiers()] + [each.servers for each in accounts.users()]
    for counter in counters:
        if counter.rota is not None and not counter.attended:
            counter.rota.rest()
