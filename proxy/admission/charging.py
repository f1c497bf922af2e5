"""What a tenant is charged for the time its transactions have a server connection (see turns.py).

It is charged wherever somebody waits: for the connections of a cluster (`rota`), and for each of the `counters`, and of
the process's connections (`of_all`), that several tenants share and somebody waits for. Each is told apart, since who
has had much of one thing may have had little of another.
"""

from __future__ import annotations

from proxy.admission.accounts import Account, Accounts, Counter
from proxy.admission.turns import Rota, expected

_UNKNOWN = 0.001  # seconds that a tenant's first transaction is thought to take


def begin(
    account: Account, rota: Rota, counters: tuple[Counter, ...], of_all: Counter | None = None
) -> float:
    """It is lent a connection: charges what is expected, and returns it."""
    seconds = account.expected or _UNKNOWN
    standing = rota.standing(account)
    if not standing.places:
        standing.begin()
    standing.charge(seconds, account.tier.weight)
    for counter in counters:
        if counter.attended:
            _begin_at(counter, account, seconds)
    if of_all is not None and of_all.attended:
        _begin_at(of_all, account, seconds)
    return seconds


def _begin_at(counter: Counter, account: Account, seconds: float) -> None:
    rota = counter.rota
    if rota is None:
        return
    standing = rota.standing(account)
    if not standing.places:
        standing.begin()
    rota.serve(standing)
    standing.charge(seconds, account.tier.weight)


def correct(
    account: Account,
    rota: Rota,
    counters: tuple[Counter, ...],
    seconds: float,
    of_all: Counter | None = None,
) -> None:
    """It has taken so much more, or less, than it was charged."""
    rota.standing(account).charge(seconds, account.tier.weight)
    for counter in counters:
        if counter.attended and counter.rota is not None:
            counter.rota.standing(account).charge(seconds, account.tier.weight)
    if of_all is not None and of_all.attended and of_all.rota is not None:
        of_all.rota.standing(account).charge(seconds, account.tier.weight)


def end(
    account: Account,
    rota: Rota,
    counters: tuple[Counter, ...],
    charged: float,
    seconds: float,
    of_all: Counter | None = None,
) -> None:
    """It gives the connection back after so many seconds; `charged` is 0 if nobody waited when it was lent."""
    account.expected = expected(account.expected, seconds)
    if not charged:
        charged = begin(account, rota, counters, of_all)
    correct(account, rota, counters, seconds - charged, of_all)


def rest(accounts: Accounts) -> None:
    """To be called about once a second: where nobody waits for a cap, who has had how much of it is forgotten."""
    counters = [each.servers for each in accounts.tiers()] + [each.servers for each in accounts.users()]
    for counter in counters:
        if counter.rota is not None and not counter.attended:
            counter.rota.rest()
