"""What a connection is lent with, and what becomes of it when it is given back: permits of the counters, the tenant's part
of a guarantee, and the charge for its time."""

from __future__ import annotations

from proxy.admission.accounts import Account, Counter, give_all
from proxy.admission.adaptive import Strain
from proxy.admission.charging import begin, correct, end
from proxy.admission.guarantees import Guarantee, Kept
from proxy.admission.queue import FairQueue
from proxy.net.transport import hurry
from proxy.server.connection import ServerConnection
from proxy.server.places import Places
from proxy.stats import PoolStats


class Lending(Places):
    """`kept`: what is free for those who are entitled to it."""

    __slots__ = ("_crowd", "_most", "_of_all", "_strain", "kept", "queue", "stats")

    def __init__(self, caps: tuple[Counter, ...], queue: FairQueue, stats: PoolStats) -> None:
        super().__init__(caps)
        self._of_all = caps[-1]
        self._most = 0  # connections there may be
        self._strain: Strain | None = None
        self.queue = queue
        self.stats = stats
        self.kept = Kept()
        self._crowd = queue.rota.crowd

    def _lend(
        self,
        server: ServerConnection,
        account: Account,
        counters: tuple[Counter, ...],
        guarantee: Guarantee | None,
        now: float,
    ) -> None:
        """One that is active by now. `guarantee`: what the account has just asked for."""
        server.account = account
        server.permits = counters
        server.lent_at, server.charged = now, 0.0
        hurried = guarantee is not None
        if guarantee is not None:
            server.guarantee = guarantee
            guarantee.use(1)
        if hurried != server.hurried:
            server.hurried = hurried
            hurry(server.transport, hurried)
        if self._crowd.waiting:
            server.charged = begin(account, self.queue.rota, counters, self._of_all)
        server.uses += 1
        self.stats.server_assignments += 1

    def _give_permits(self, server: ServerConnection, now: float) -> None:
        if server.account is not None:
            self._charge(server, server.account, now)
        permits, server.permits = server.permits, ()
        give_all(permits)

    def _charge(self, server: ServerConnection, account: Account, now: float) -> None:
        """The tenant has had the connection until now; whose it is after this is another question."""
        server.account = None
        guarantee = server.guarantee
        if guarantee is not None:
            server.guarantee = None
            guarantee.use(-1)
        seconds = now - server.lent_at
        account.stats.server_seconds += seconds
        if self._strain is not None:
            self._strain.record(account, seconds)
        if self._crowd.waiting:
            rota, charged = self.queue.rota, server.charged
            end(account, rota, server.permits, charged, seconds, self._of_all)

    def charge_running(self, now: float) -> None:
        """Those that have their connections for longer than was expected are charged as they go on; who got one while
        nobody waited, from now on."""
        for server in self.active:
            more = now - server.lent_at - server.charged
            if server.account is None or more <= 0.0:
                continue
            if server.charged:
                correct(server.account, self.queue.rota, server.permits, more, self._of_all)
            server.charged += more

    def _keep(self, account: Account, now: float) -> Guarantee | None:
        if not account.guaranteed:
            return None
        return self.kept.asked(self.queue.rota, account, self.queue.most, now)

    def _has_more_than_is_kept(self) -> bool:
        """Connections for those who are not entitled to any."""
        return len(self.active) + self.kept.count < min(self._most, self.queue.most, self._reach())

    def _reach(self) -> int:
        """How many connections there may be; where other processes want some too, as many as are here."""
        most = self._most
        for counter in self.caps:
            if counter.lender is not None and counter.attended:
                most = min(most, self._size() + max(0, counter.allowance - counter.used))
        return most

    def _for_all(self) -> int:
        """Idle connections that whoever is the next may have. Where none but those who are entitled may, and other
        processes have more, the others are to get theirs from there."""
        if self.kept.count and self._of_all.lender is not None and not self._has_more_than_is_kept():
            return self.spare
        return len(self.idle)

    @property
    def spare(self) -> int:
        """Idle connections that nobody is entitled to."""
        return max(0, len(self.idle) - self.kept.count)
