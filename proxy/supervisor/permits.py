"""The caps and rates of the host: the ledger and the shares, between the workers that ask and those that give back."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from time import monotonic, time

from proxy import log
from proxy.admission import stakes
from proxy.admission.apportion import Wish
from proxy.admission.ledger import Holding, Ledger, Order
from proxy.admission.shares import QUOTA, RATE, Shares
from proxy.admission.slices import Grant, Held, Told
from proxy.control import counts as counting
from proxy.control import views
from proxy.control.counts import Counts
from proxy.control.views import View
from proxy.net.channel import Channel, Fields, Handler
from proxy.net.tls import ServerTls
from proxy.settings import ProcessSettings
from proxy.supervisor.concurrency import Concurrency
from proxy.supervisor.custody import Vault
from proxy.supervisor.treasury import Treasury

_LOOK = 1.0  # seconds
_DIVIDE = 0.1
_SOONEST = 0.005  # for those who wait for what comes in at some rate
_PATIENCE = 10  # looks that a worker of before has to say what it holds

_log = log.get("permits")


class Permits:
    """`joined` and `adopted` are told of each worker, `gone` of its end; `handlers` are for its channel.

    A worker that was there before this program is asked for what it holds. The answer names the question's `time`,
    so that what a worker said to the program before is not taken for it.
    """

    def __init__(self, tls: Callable[[], ServerTls]) -> None:
        self.ledger = Ledger()
        self.shares = Shares(time() - monotonic())
        self.concurrency = Concurrency()
        self._pours: asyncio.TimerHandle | None = None
        self.vault = Vault(tls, self._released, self._buried)
        self.treasury: Treasury | None = None
        self._kill: Callable[[int], None]
        self._channels: dict[int, Channel] = {}
        self._unreported: dict[int, int] = {}  # looks that each has had
        self._time = secrets.token_hex(8)
        self._looks: asyncio.TimerHandle | None = None
        self._divide = False
        self._division: asyncio.TimerHandle | None = None

    def join_fleet(
        self, process: ProcessSettings, kill: Callable[[int], None], before: Fields | None
    ) -> None:
        """`before` is what the program had there whose place this one takes."""
        if not process.fleet_size:
            return
        rule = stakes.Rule(process.fleet_size, process.fleet_reserve, process.fleet_ttl)
        self._kill = kill
        self.treasury = Treasury(
            process.redis_url, process.fleet_name, rule, self._demand, self._again, self._over, self._in_time
        )  # fmt: skip
        self.treasury.stakes.whose = self.ledger.wishes
        if before:
            self.treasury.stakes.adopt(before)
        self.ledger.above = self.shares.above = self.treasury.stakes
        self.treasury.start()

    def _again(self, names: Iterable[str]) -> None:
        """The shares of these are others."""
        orders: list[Order] = []
        rates = []
        for name in names:
            if name.startswith((RATE, QUOTA)):
                rates.append(name)
            else:
                orders += self.ledger.again(name)
        self._send(orders)
        if rates:
            self._grant(self.shares.again(rates, monotonic()))

    def _demand(self, name: str) -> tuple[int, int]:
        if name.startswith((RATE, QUOTA)):
            return self.shares.demand(name, monotonic())
        return self.ledger.demand(name)

    def _over(self, by_all_means: bool, excess: Iterable[tuple[str, int]]) -> None:
        """So many permits are another's soon. What dead workers have left is ending anyway."""
        keep: dict[int, list[tuple[str, int]]] = {}
        for name, count in excess:
            held = self.ledger.held(name)
            left = count - sum(n for number, n in held.items() if number not in self._channels)
            for number, n in sorted(held.items(), key=lambda item: -item[1]):
                if left > 0 and number in self._channels:
                    keep.setdefault(number, []).append((name, max(0, n - left)))
                    left -= n
        for number, rows in keep.items():
            if by_all_means:
                _log.error("a worker is killed, since it keeps what is not its any more", worker=number)
                self._kill(number)
            else:
                self._channels[number].tell("shed", rows=rows)

    def _in_time(self) -> None:
        if self.treasury is not None:
            until = self.treasury.stakes.workers_until(monotonic())
            for channel in self._channels.values():
                channel.tell("fleet", until=until)

    def view(self, name: str) -> View:
        """SHOW FLEET and SHOW SHARES."""
        treasury = self.treasury
        if name == "shares":
            return views.shares(treasury.stakes.rows() if treasury is not None else ())
        return views.fleet(treasury.row() if treasury is not None else None)

    def counts(self) -> Counts:
        return counting.of_fleet(*self.treasury.seen()) if self.treasury is not None else counting.empty()

    def hand_on(self) -> Fields | None:
        return self.treasury.stakes.hand_on() if self.treasury is not None else None

    def joined(self, number: int, channel: Channel) -> None:
        self._channels[number] = channel
        self.ledger.join(number)
        self._look_later()

    def expect(self, numbers: Iterable[int]) -> None:
        """Before the first of them is adopted: nothing is granted until all have said what they hold."""
        self.shares.inherit()
        for number in numbers:
            self.ledger.expect(number)

    def adopted(self, number: int, channel: Channel) -> None:
        self._channels[number] = channel
        self._unreported[number] = 0
        channel.tell("report", time=self._time)
        self._look_later()

    def gone(self, number: int) -> None:
        """The process has ended. What its connections stand for may not have."""
        self._look_at_time()
        self._channels.pop(number, None)
        self._unreported.pop(number, None)
        self._send(self.ledger.died(number))
        self._grant(self.shares.died(number, monotonic()))
        self.vault.bury(number)

    def _released(self, number: int, names: tuple[str, ...]) -> None:
        self._send(self.ledger.released(number, names))

    def _buried(self, number: int) -> None:
        self._send(self.ledger.buried(number))

    async def close(self) -> None:
        if self.treasury is not None:
            await self.treasury.close(not self.vault.busy)
        await self.vault.close()
        if self._looks is not None:
            self._looks.cancel()
            self._looks = None
        if self._pours is not None:
            self._pours.cancel()
            self._pours = None
        if self._division is not None:
            self._division.cancel()
            self._division = None

    def handlers(self, number: int) -> Mapping[str, Handler]:
        return {
            "lease": lambda fields: self._lease(number, fields),
            "rates": lambda fields: self._rates(number, fields),
            "reported": lambda fields: self._reported(number, fields),
            "strain": lambda fields: self.concurrency.hear(number, fields["rows"]),
        }

    def _look_at_time(self) -> None:
        """This process may have stood still: nothing is granted of a share whose time is over."""
        if self.treasury is not None:
            self._again(self.treasury.stakes.tick(monotonic()))

    def _lease(self, number: int, fields: Fields) -> None:
        self._look_at_time()
        self.vault.hear(number)  # a connection is let go before its permit is somebody else's
        orders: list[Order] = []
        for name, limit, backed, back, wants, hopes, answers, spare, *more in fields["rows"]:
            wishes, served = more or (None, False)  # not of a worker of an older version
            orders += self.ledger.lease(
                number, name, limit=limit, backed=backed, back=back, wants=wants, hopes=hopes, answers=answers,
                spare=spare, wishes=None if wishes is None else [Wish(*wish) for wish in wishes], served=served,
            )  # fmt: skip
            self._divide = self._divide or wishes is not None
        self._send(orders)
        if self._divide and self._division is None:
            self._division = asyncio.get_running_loop().call_later(_DIVIDE, self._tell_parts)

    def _reported(self, number: int, fields: Fields) -> None:
        self._look_at_time()
        if fields["time"] == self._time and self._unreported.pop(number, None) is not None:
            self.shares.report(number, [Held(*row) for row in fields.get("rates", ())], monotonic())
            self._send(self.ledger.report(number, [Holding(*row) for row in fields["rows"]]))

    def _rates(self, number: int, fields: Fields) -> None:
        if number in self._unreported:
            return  # it was said to the program before
        now = monotonic()
        grants: list[Grant] = []
        for row in fields["rows"]:
            grants += self.shares.lease(number, Told(*row), now)
        self._grant(grants)

    def _grant(self, grants: list[Grant]) -> None:
        by_worker: dict[int, list[Grant]] = {}
        for grant in grants:
            by_worker.setdefault(grant.worker, []).append(grant)
        for number, rows in by_worker.items():
            channel = self._channels.get(number)
            if channel is not None:
                channel.tell("rates", rows=rows)
        due = self.shares.due(monotonic())
        if due is not None and self._pours is None:
            self._pours = asyncio.get_running_loop().call_later(max(due, _SOONEST), self._pour)

    def _pour(self) -> None:
        """What has come in goes to those who wait for it."""
        self._pours = None
        self._grant(self.shares.look(monotonic()))

    def _send(self, orders: list[Order]) -> None:
        by_worker: dict[int, list[Order]] = {}
        for order in orders:
            by_worker.setdefault(order.worker, []).append(order)
        for number, rows in by_worker.items():
            channel = self._channels.get(number)
            if channel is not None:
                channel.tell("permits", rows=rows)

    def _look_later(self) -> None:
        if self._looks is None:
            self._looks = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _look(self) -> None:
        self._looks = None
        self._look_later()
        for number in list(self._unreported):
            self._unreported[number] += 1
            if self._unreported[number] > _PATIENCE:
                _log.error("a worker does not say what it holds of the caps", worker=number)
                del self._unreported[number]
                self._send(self.ledger.report(number, []))
        self._send(self.ledger.look())
        decisions = self.concurrency.look()
        if decisions:
            for channel in self._channels.values():
                channel.tell("concurrency", rows=decisions)
        self._tell_parts()

    def _tell_parts(self) -> None:
        """How tenants' weights are divided over workers, which need not be known at once."""
        if self._division is not None:
            self._division.cancel()
        self._divide, self._division = False, None
        by_worker: dict[int, list[tuple[str, dict[str, float]]]] = {}
        for number, name, parts in self.ledger.parts():
            by_worker.setdefault(number, []).append((name, parts))
        for number, rows in by_worker.items():
            channel = self._channels.get(number)
            if channel is not None:
                channel.tell("parts", rows=rows)
