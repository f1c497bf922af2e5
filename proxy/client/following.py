"""What follows for those who are connected when tenants change where they are stored, and what is forgotten of
tenants that nobody uses.

A session follows at its next transaction. One that asks for nothing follows at once, so that the sessions of a tenant
that is suspended, deleted or expired end, and those that keep a connection where their tenant lived before; those that
wait for a connection then end as well, or wait where the tenant lives now, and those that are in a transaction have until
the next look at it (`end_unserved`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.admission.accounts import Counter
from proxy.client.plane import Plane
from proxy.errors import NotAuthorized, ShuttingDown
from proxy.protocol.lifecycle import SessionState
from proxy.registry.memory import OLD

if TYPE_CHECKING:
    from proxy.client.session import Session


def all_changed(plane: Plane) -> None:
    """The configuration is another. Sessions see that at their next transaction."""
    for account in list(plane.accounts):  # who waits at a cap that was raised waits no longer
        tenant = plane.registry.known(account.tenant.name)
        if tenant is not None:
            plane.accounts.account(tenant)
    for of_user in plane.accounts.users():
        plane.accounts.user(of_user.user)


def follow_at_rest(plane: Plane) -> None:
    """Has those follow that keep a connection and do nothing with it; all others see at their next transaction what has
    changed."""
    epoch = plane.registry.epoch
    for session in list(plane.sessions):
        if session.epoch != epoch and session.server is not None and session.rests:
            session.reroute()


def tenants_changed(plane: Plane, names: frozenset[str]) -> None:
    for name in names:
        tenant = plane.registry.known(name)
        if tenant is not None:
            plane.accounts.account(tenant)  # who waits at a cap that was raised waits no longer
    for session in list(plane.sessions):
        if not names.isdisjoint(_speaks_for(session)):
            session.epoch = OLD
            if session.state is SessionState.WAITING:
                end_unserved(session)
                _wait_elsewhere(session)
            elif session.rests:
                session.reroute()
    for relay in list(plane.relays):
        if relay.tenant in names:
            relay.session.epoch = OLD
            relay.follow()
    for pool in plane.pools:
        if plane.registry.cluster(pool.cluster.name) is None:
            pool.recycle()


def _wait_elsewhere(session: Session) -> None:
    """A transaction that has not begun is for where its tenant lives now."""
    tenant = session.registry.known(session.tenant.name)
    if session.state is not SessionState.WAITING or session.chooser is not None or tenant is None:
        return
    if tenant.cluster != session.pool.key.cluster:
        session.pool.leave(session)
        session.step("refuse")
        if session.reroute():
            session.resume()


def users_changed(plane: Plane, names: frozenset[str]) -> None:
    for session in list(plane.sessions):
        if session.user.name in names:
            session.epoch = OLD
            if session.rests:
                session.reroute()
            elif plane.registry.user(session.user.name) is None:
                session.end(NotAuthorized(f'user "{session.user.name}" may not log in any more'))
    for relay in list(plane.relays):
        if relay.session.user.name in names:
            relay.session.epoch = OLD
            relay.follow()


def end_unserved(session: Session) -> None:
    """Ends a session that has not followed yet and whose tenant is served no more, whatever it does. One that may choose
    its tenant goes on, for others."""
    if session.epoch != OLD or session.chooser is not None:
        return
    why = session.registry.ended(session.tenant.name)
    if why:
        session.end(ShuttingDown(f'tenant "{session.tenant.name}" {why}'))


def forget_unused(plane: Plane) -> None:
    """Drops the accounts of tenants that are gone, and of others if there are more than tenants are kept in memory: not
    while they hold what was granted to this process, nor, if they may come back, what they have spent of their rates."""
    rows, accounts = plane.registry.rows, plane.accounts
    for of_user in accounts.users():
        at_rest = not of_user.waiting and _at_rest(of_user.clients, of_user.servers)
        if at_rest and plane.registry.is_foreign(of_user.user.name):
            accounts.forget_user(of_user.user.name)
    if rows is None:
        return
    used = {name for session in plane.sessions for name in _speaks_for(session)}
    used |= {relay.tenant for relay in plane.relays}
    over = len(accounts.names()) - rows.size
    for account in list(accounts):
        name = account.tenant.name
        gone = plane.registry.known(name) is None
        spends = account.gate is not None and not gone
        at_rest = not account.waiting and _at_rest(account.clients, account.servers)
        if (gone or (over > 0 and not spends)) and at_rest and name not in used:
            accounts.forget(name)
            over -= 1
    plane.registry.trim()


def _at_rest(*counters: Counter) -> bool:
    return not any(
        counter.used
        or counter.waiting
        or (counter.lender is not None and counter.limit and counter.allowance)
        for counter in counters
    )


def _speaks_for(session: Session) -> list[str]:
    names = [session.tenant.name]
    if session.chooser is not None:
        names += session.chooser.tenancy.names
    return names
