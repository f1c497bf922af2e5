"""What a proxy has of one cap of its fleet, and what it is to have of it while others want some, too (see stakes.py).

`leased` is what Redis may count as ours, `target` what we mean to keep of that. While others want some, it is known how much
we may keep whatever they want (`fair`, see claims.py). What is wanted up to there is `lacking`: Redis grants it before all
else that is wanted, and it alone makes the others give back what they use. What is idle they give back to anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from proxy.admission.apportion import Wish
from proxy.admission.claims import Claims


class Stake:
    __slots__ = (
        "claims", "denied", "fair", "fresh", "goes_round", "leased", "limit", "needed", "sought", "target",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.leased = 0
        self.target = 0
        self.denied = False
        self.fresh = False  # it was got for somebody, who is to have used it once
        self.sought = False  # by other proxies
        self.fair = 0
        self.goes_round = False  # there are fewer than proxies that want one
        self.needed = 0  # at the last look
        self.claims = Claims()

    def lacking(self, wanted: int) -> int:
        """How many of those that are wanted are due to us. While nobody else is known to want any, all are."""
        if not self.sought:
            return wanted
        return min(wanted, max(0, self.fair - self.leased, int(self.goes_round and not self.leased)))

    def dealt(self, held: int, over: int, asked: int, sought: bool) -> bool:
        """What Redis says that we have, and how much too much all have together. Whether our share is another, or the
        answer is no."""
        before, granted = self.target, held - self.leased
        yields = self.target < self.leased
        self.leased = held
        if not yields or not sought:  # whom it was owed to may be gone
            self.target = max(0, held - over)
        self.denied = granted < asked
        self.fresh = granted > 0
        return self.target != before or self.denied

    def hear(
        self,
        told: Sequence[str],
        own: Iterable[Wish],
        members: Iterable[str],
        member: str,
        parts: tuple[int, int, int],
        turn: float,
    ) -> None:
        """Whose wishes the others have. `parts`: what is each proxy's own, the pool, and how many have or want some."""
        fixed, pool, parties = parts
        self.claims.hear(told, members)
        self.fair = self.claims.keep(own, self.limit, fixed, pool, parties, member, turn)
        self.goes_round = pool < parties

    def give_way(self, wanted: int, lacking: int, needed: int) -> bool:
        """To others, who want so many and lack so many of those, while so many are needed here. Whether our share is
        another."""
        before, was = self.target, self.sought
        self.sought = True
        idle = min(wanted, self.leased - needed)
        target = self.leased - max(0, idle, min(lacking, self.leased - self.fair))
        self.target = min(target, before)
        return self.target < before or not was

    @property
    def moves(self) -> bool:
        """There is something to tell Redis."""
        return self.target < self.leased or self.denied
