"""What the proxies of a fleet tell one another of the tenants for whom they want some of a counter, and what each is due.

They are divided as workers are (see apportion.py): each tenant has its weight's share wherever its clients are, and no less
than is guaranteed to it. A proxy that has told nothing, of an older version or with wishes of one tenant only, is taken
for one more that wants an equal part.

Connections are whole, and what proxies are due is not: a tenant that is due 1.6, all at one proxy, would have one or two of
them for ever. So what is left of whole ones goes round: `turn` is a number that all know alike and that grows slowly, and
while it grows by one each proxy has one more for that part of the time that it lacks of one (`_whole`). At any time as many
are kept as there are, and in a whole turn each proxy gets one more, and gives one back, once at most.

A proxy names few of its tenants, those with a guarantee and of most weight first, and adds up the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import ceil

from proxy.admission.apportion import Division, Wish

NAMED = 16
_SLACK = 1e-6


class Claims:
    """What is known of one counter: what the others have told, by member, and what was told to them."""

    __slots__ = ("_divided", "_due", "_texts", "_told", "others", "told")

    def __init__(self) -> None:
        self.others: dict[str, list[Wish]] = {}
        self.told = ""
        self._told: list[Wish] = []
        self._texts: dict[str, str] = {}  # of the others
        # By what was divided last, which is the same most of the time, and what came of it.
        self._divided: object = None
        self._due: dict[int, float] = {}

    def tell(self, wishes: Iterable[Wish]) -> str:
        """What the others are to know."""
        text = _text(_few(wishes))
        if text != self.told:
            self.told, self._told = text, _read(text)
        return self.told

    def news(self, wishes: Iterable[Wish]) -> bool:
        """Whether they know something else. How much is wanted changes with each transaction, and is none."""
        return _whose(_few(wishes)) != _whose(self._told)

    def hear(self, told: Sequence[str], members: Iterable[str]) -> None:
        """Of each member its name and what it has told; who is none any more has left that behind."""
        known = set(members)
        texts = {member: text for member, text in zip(told[::2], told[1::2], strict=True) if member in known}
        self.others = {
            member: self.others[member] if self._texts.get(member) == text else _read(text)
            for member, text in texts.items()
        }
        self._texts = texts

    def keep(
        self,
        own: Iterable[Wish],
        limit: int,
        fixed: int,
        pool: int,
        parties: int,
        member: str = "",
        turn: float = 0.0,
    ) -> int:
        """How much of the `pool` this proxy, the `member`, may keep although others want it. Of all of `limit` so much is
        `fixed`, its own whatever happens."""
        mine = list(own)
        guaranteed = max(0, ceil(sum(wish.floor for wish in mine) - _SLACK) - fixed)
        if pool < parties:
            return min(pool, guaranteed)
        if not self.others:
            equal = -(-pool // parties)
            nothing_left = equal * (parties - 1) >= pool  # for one of them
            if nothing_left and not fixed:
                equal = pool // parties
            return max(guaranteed, equal)
        # All are to divide alike: of this proxy, too, by what the others know.
        claims = {member: mine if self.news(mine) else self._told} | self.others
        weights = [sum(wish.weight for wish in told) for told in claims.values() if told]
        silent = [Wish("", sum(weights) / len(weights), max(1, limit // parties), 0.0)]
        names = sorted(claims)
        wishes = {number: claims[name] or silent for number, name in enumerate(names)}
        wishes |= dict.fromkeys(range(len(wishes), parties), silent)
        here = names.index(member)
        others = sum(wish.floor for number, told in wishes.items() if number != here for wish in told)
        if self._divided != (wishes, limit):
            self._divided, self._due = (wishes, limit), Division(wishes, limit).due()
        whole = _whole(self._due, limit, turn)
        due = min(whole[here], max(1, int(limit - others + _SLACK)))
        return max(guaranteed, due - fixed, 0)


def _whole(due: Mapping[int, float], limit: int, turn: float) -> dict[int, int]:
    """Whole permits, no more of them than there are. What each lacks of one more is laid end to end, and who has a whole
    number in its piece, moved on by the `turn`, has one more."""
    found = {number: int(count + _SLACK) for number, count in due.items()}
    lacking = {number: max(0.0, count - found[number]) for number, count in due.items()}
    left = min(limit, ceil(sum(due.values()) - _SLACK)) - sum(found.values())
    ratio = left / sum(lacking.values()) if left > 0 else 0.0
    end = turn % 1.0
    for number, count in lacking.items():
        begin, end = end, end + count * ratio
        found[number] += int(end + _SLACK) - int(begin + _SLACK)
    return found


def together(wishes: Iterable[Wish]) -> list[Wish]:
    """Those of all workers of a proxy, each tenant once."""
    found: dict[str, Wish] = {}
    for wish in wishes:
        if (before := found.get(wish.tenant)) is not None:
            weight = max(wish.weight, before.weight) if wish.tenant else wish.weight + before.weight
            wish = Wish(wish.tenant, weight, wish.wanted + before.wanted, wish.floor + before.floor)
        found[wish.tenant] = wish
    return list(found.values())


def _few(wishes: Iterable[Wish]) -> list[Wish]:
    ordered = sorted(wishes, key=lambda wish: (not wish.tenant, not wish.floor, -wish.weight, wish.tenant))
    named, others = ordered[:NAMED], ordered[NAMED:]
    return [*named, *together(wish._replace(tenant="") for wish in others)]


def _text(wishes: Iterable[Wish]) -> str:
    rows = [(wish.tenant, wish.weight, wish.wanted, round(wish.floor, 3)) for wish in wishes]
    return json.dumps(rows, separators=(",", ":")) if rows else ""


def _read(text: str) -> list[Wish]:
    return [Wish(*row) for row in json.loads(text)] if text else []


def _whose(wishes: Iterable[Wish]) -> Mapping[str, tuple[float, float]]:
    return {wish.tenant: (round(wish.weight, 3), round(wish.floor)) for wish in wishes}
