"""What a proxy may use of the caps of its fleet: the share that its ledger's limits are, and how it moves.

Theory. A cap is cut in two. A fixed part of it, `reserve` percent, is divided by the number of proxies there may be
(`size`): what each gets is its own, always, with or without Redis, and never anybody else's (`floor`). The rest is the
pool, leased in Redis by whoever needs it. So with all pools kept, the sum of what proxies use is never above the cap.

A pool is kept because a lease is over in its holder before it is over for anybody else, by monotonic clocks alone:

- A holder's time runs from when it SENT the last request that was answered. After 0.7 of `ttl` it uses its floor and
  has back what comes free, at 0.8 it ends the sessions that are still above, at 0.9 the workers that did not.
- Every request raises the sender's beat. Redis takes a lease away only when another proxy says that it has seen the
  same beat for a whole `ttl`, from when it RECEIVED it, and the beat is that one still. Clocks of the wall, or of
  Redis, have no part in it; those of proxies may differ in pace by a tenth.
- A request is done only if its beat is above the last one, so what was given up as lost does no harm if it comes later.
  Requests say what is held as it is, not how it has changed; an answer that was lost makes Redis count too much.
- All share by the same rule: one that has another gets no leases.
- Redis that was restarted or emptied knows nothing: a new generation begins, everybody says what it has, and nothing is
  granted until somebody has seen that generation for a `ttl`: all who have not said so have given up by then.

Where others want what is in use here, what is idle goes back, and as far as others lack what they are due, what is above
what this proxy's tenants are due (see claims.py; an equal part, where nobody says whose it is) as it comes free; of a pool
that is smaller than the number of those who want it everything does but what is guaranteed, so that it goes round.

States of the whole: not JOINED (Redis does not know of us, or not any more: the next request tells everything), JOINED,
CUT (for too long without an answer: floors only). Those of one stake: stake.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any, NamedTuple

from proxy.admission.apportion import Wish
from proxy.admission.shares import QUOTA, RATE
from proxy.admission.stake import Stake

SOFT, HARD, LAST = 0.7, 0.8, 0.9  # parts of the ttl
_ALONE = 0.1  # for which workers do without their supervisor when it enforces
_SOON = 0.01  # seconds between two requests, at least
_AGAIN = 0.1  # while something is wanted
_BEAT = 0.25
_LOOK = 5.0
_CROWD = 10  # proxies
_TURN = 200  # requests of each, of a crowd at most, in which what is left of whole ones goes round once
_OF_THE_HOST = frozenset(("max_client_conn", "max_server_connections"))

Demand = Callable[
    [str], tuple[int, int]
]  # what the workers have (-1: they have not said yet), and want besides
Whose = Callable[[str], list[Wish]]  # wishes those are, where several tenants share it
Said = dict[str, Any]


class Rule(NamedTuple):
    """`reserve` in percent."""

    size: int
    reserve: int
    ttl: float


class Row(NamedTuple):
    """What is seen of one cap: its limit, our share of it, what is used here of that, and what is wanted besides."""

    name: str
    limit: int
    share: int
    used: int
    wanted: int


class Stakes:
    """`hurry` is called when there is something to ask for at once."""

    __slots__ = (
        "_asked", "_beat", "_beats", "_contact", "_demand", "_generation", "_generation_seen", "_hurried", "_hurry",
        "_looked", "_moving", "_rule", "_sent", "_stakes", "answers", "cut", "differs", "joined", "member", "settled",
        "whose",
    )  # fmt: skip

    def __init__(self, member: str, rule: Rule, demand: Demand, hurry: Callable[[], None]) -> None:
        self.member = member
        self.joined = False
        self.cut = False
        self.differs = False  # the others share by another rule
        self.answers = False  # Redis does
        self._rule = rule
        self._demand = demand
        self.whose: Whose = lambda _: []
        self._hurry = hurry
        self._hurried = False
        self._beat = 0
        self._sent = self._contact = self._looked = -inf
        self._generation = ""
        self._generation_seen = -inf
        self.settled = False
        self._beats: dict[str, tuple[int, float]] = {}
        self._stakes: dict[str, Stake] = {}
        self._moving: dict[str, None] = {}
        self._asked: dict[str, int] = {}  # by the request that is under way, with what was wanted

    # --- what the ledger asks -------------------------------------------------------------------------

    def floor(self, limit: int) -> int:
        return limit * self._rule.reserve // (100 * self._rule.size)

    def share(self, name: str, limit: int) -> int:
        """How much of it the workers may have now."""
        if name in _OF_THE_HOST:
            return limit
        stake = self._stakes.get(name)
        if stake is None:
            return self.floor(limit)
        if stake.limit != limit:
            stake.limit = limit
            self._moving[name] = None
        return self.floor(limit) + min(stake.target, self._pool(limit))

    def pending(self, name: str, limit: int) -> bool:
        """More is wanted than the share. False: nothing is to be hoped for."""
        if name in _OF_THE_HOST or limit <= 0:
            return False
        stake = self._stakes.get(name)
        if stake is None:
            stake = self._stakes[name] = Stake(limit)
        if not self.answers:
            return False
        if stake.denied:
            stake.denied = False
            return False
        if name not in self._moving:
            self._moving[name] = None
            self._hurried = True
            self._hurry()
        return True

    def sought(self, name: str) -> bool:
        stake = self._stakes.get(name)
        return stake is not None and stake.sought

    def wishes(self, name: str) -> list[list[Wish]]:
        """Of other proxies that seek it, each one's."""
        stake = self._stakes.get(name)
        return list(stake.claims.others.values()) if stake is not None and stake.sought else []

    def _pool(self, limit: int) -> int:
        return limit - self._rule.size * self.floor(limit)

    def _needs(self, name: str, stake: Stake) -> tuple[int, int]:
        """What is held of the lease, and what is wanted besides."""
        held, wanted = self._demand(name)
        if held < 0:
            return stake.leased, 0
        return max(0, held - self.floor(stake.limit)), wanted

    # --- what is said to Redis, and what it says ------------------------------------------------------

    def due(self, now: float) -> float:
        """In how many seconds to speak."""
        pause = min(_BEAT, self._rule.ttl / 8)
        if self._hurried:
            pause = _SOON
        elif self._moving:
            pause = min(pause, _AGAIN)
        pause *= max(1.0, (len(self._beats) + 1) / _CROWD)  # so that Redis has as much to do for any number
        return max(0.0, self._sent + min(pause, self._rule.ttl / 8) - now)

    def request(self, now: float) -> Said:
        self._look(now)
        self._beat += 1
        self._sent = now
        self._hurried = False
        names = list(self._moving) if self.joined else list(self._stakes)
        self._moving = {}
        rows = []
        for name in names:
            stake = self._stakes[name]
            needed, wanted = self._needs(name, stake)
            if name.startswith(RATE):
                needed = 0  # it is less the moment that it is to be
            stake.leased = max(needed, stake.target)  # from now on, even if this is lost
            if stake.target < stake.leased:
                wanted = 0  # what is owed to others comes first
            stake.denied = False
            self._asked[name] = wanted
            told = stake.claims.tell(self.whose(name))
            rows.append((name, self._pool(stake.limit), stake.leased, wanted, told, stake.lacking(wanted)))
        ttl = self._rule.ttl
        over = not self.settled and bool(self._generation) and now - self._generation_seen >= ttl
        return {
            "member": self.member,
            "beat": self._beat,
            "rule": f"{self._rule.size} {self._rule.reserve} {self._rule.ttl:g}",
            "generation": self._generation,
            "join": not self.joined and bool(self._generation),
            "settle": over,
            "reap": [(m, beat) for m, (beat, seen) in self._beats.items() if now - seen >= ttl],
            "silent": [m for m, (_, seen) in self._beats.items() if now - seen > max(1.0, ttl / 8)],
            "rows": rows,
        }

    def leave(self) -> Said:
        """The last request: nothing is held any more."""
        self._beat += 1
        return {"member": self.member, "beat": self._beat, "leave": True}

    def heard(self, said: Said, now: float) -> list[str]:
        """The counters of which the share is another, or the answer is no."""
        if now - self._sent > SOFT * self._rule.ttl:  # this process has stood still meanwhile
            return self.lost()
        asked, self._asked = self._asked, {}
        self.answers = True
        if said["generation"] != self._generation:
            self._generation, self._generation_seen = said["generation"], now
        self.settled = bool(said["settled"])
        if said["status"] != "ok":
            self.joined = False
            self.differs = said["status"] == "differs"
            self._moving |= dict.fromkeys(asked)
            self._hurried = not self.differs
            if self.differs:  # nothing is to be hoped for
                return self.lost()
            return []
        self.joined, self.differs = True, False
        self._contact = self._sent
        self._see(said.get("beats") or {}, now)
        changed: dict[str, None] = {}
        if self.cut:
            self.cut = False
            for name, stake in self._stakes.items():
                if stake.target != stake.leased:
                    stake.target = stake.leased
                    changed[name] = None
        wishes = said.get("sought") or ()
        sought = {wish[0] for wish in wishes}
        for name, held, over in said.get("rows") or ():
            stake = self._stakes[name]
            if stake.dealt(held, over, asked[name], name in sought):
                changed[name] = None
            if stake.moves:
                self._moving[name] = None
        changed |= self._hear_wishes(wishes)
        for name, stake in self._stakes.items():
            if stake.sought and name not in sought:
                stake.sought = False
                changed[name] = None
        return list(changed)

    def _see(self, beats: dict[str, int], now: float) -> None:
        before = self._beats
        self._beats = {}
        for member, beat in beats.items():
            old = before.get(member)
            if member != self.member:
                self._beats[member] = old if old is not None and old[0] == beat else (beat, now)

    def _hear_wishes(self, wishes: Iterable[Any]) -> dict[str, None]:
        """Others want so many, so many have some or want it, whose wishes these are, and how many they lack."""
        changed: dict[str, None] = {}
        for name, count, parties, told, lacking in wishes:
            stake = self._stakes.get(name)
            if stake is None:
                continue
            own = self.whose(name)
            parts = self.floor(stake.limit), self._pool(stake.limit), parties
            stake.hear(told or (), own, self._beats, self.member, parts, self._turn)
            if stake.fresh:
                stake.fresh = False
                continue
            if stake.give_way(count, lacking, sum(self._needs(name, stake))):
                changed[name] = None
            if stake.moves or stake.claims.news(own):
                self._moving[name] = None
        return changed

    @property
    def _turn(self) -> float:
        """How often what is left of whole ones has gone round, as all know alike: by the requests of all."""
        beats = self._beat + sum(beat for beat, _ in self._beats.values())
        return beats / (_TURN * min(len(self._beats) + 1, _CROWD))

    def lost(self) -> list[str]:
        """No answer has come, or none that is in time."""
        self._moving |= dict.fromkeys(self._asked)
        self._asked = {}
        was, self.answers = self.answers, False
        return list(self._stakes) if was else []

    # --- time passes ----------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """What was not needed at two looks goes back; what is nothing is forgotten."""
        if now - self._looked < _LOOK:
            return
        self._looked = now
        for name, stake in list(self._stakes.items()):
            needed = sum(self._needs(name, stake))
            keep = max(needed, stake.needed)
            stake.needed = needed
            if stake.target > keep:
                stake.target = keep
                self._moving[name] = None
            elif not (stake.leased or needed or name in self._moving):
                del self._stakes[name]

    def tick(self, now: float) -> list[str]:
        """The counters whose share is another because of the time."""
        age = now - self._contact
        if self.joined and age >= LAST * self._rule.ttl:
            self.joined = False
        if self.cut or age < SOFT * self._rule.ttl:
            return []
        self.cut = True
        for name, stake in self._stakes.items():
            stake.target = 0
            self._moving[name] = None
        return list(self._stakes)

    def excess(self, now: float) -> tuple[bool, list[tuple[str, int]]]:
        """What must end at once, and whether with the workers that have it."""
        age = now - self._contact
        if not self.cut or age < HARD * self._rule.ttl or not self._generation:
            return False, []
        found = [
            (name, self._needs(name, stake)[0])
            for name, stake in self._stakes.items()
            if not name.startswith((RATE, QUOTA))  # which nobody has, but spends
        ]
        return age >= LAST * self._rule.ttl, [(name, count) for name, count in found if count]

    def workers_until(self, now: float) -> float:
        """How long workers may go on that hear no more of us, so that they are gone in time."""
        ttl = self._rule.ttl
        if now - self._contact >= LAST * ttl:
            return now + LAST * ttl
        return max(self._contact + SOFT * ttl, now + _ALONE * ttl)

    # --- what is seen ---------------------------------------------------------------------------------

    @property
    def others(self) -> int:
        """Proxies that Redis knows of, besides this one."""
        return len(self._beats)

    def silence(self, now: float) -> float:
        """Seconds since Redis has answered what was sent then; inf: never."""
        return now - self._contact

    def rows(self) -> list[Row]:
        found = []
        for name, stake in self._stakes.items():
            held, wanted = self._demand(name)
            found.append(Row(name, stake.limit, self.share(name, stake.limit), held, wanted))
        return found

    # --- an upgrade -----------------------------------------------------------------------------------

    def hand_on(self) -> Said:
        return {
            "member": self.member,
            "beat": self._beat,
            "contact": self._contact if self._contact > -inf else None,
            "generation": self._generation,
            "generation_seen": self._generation_seen if self._generation else None,
            "stakes": [(name, stake.limit, stake.leased) for name, stake in self._stakes.items()],
        }

    def adopt(self, handed: Said) -> None:
        """What the program before had: it tells all of it anew, and has it until its time is over."""
        self.member, self._beat = handed["member"], handed["beat"]
        self._contact = handed["contact"] if handed["contact"] is not None else -inf
        self._generation = handed["generation"]
        if self._generation:
            self._generation_seen = handed["generation_seen"]
        for name, limit, leased in handed["stakes"]:
            stake = self._stakes[name] = Stake(limit)
            stake.leased = stake.target = leased
            self._moving[name] = None
