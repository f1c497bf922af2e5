"""The registry's rows in memory: as many as it may hold, the longest unused leave first, each good for a time.

An entry is fresh until its time is over or its row is doubted; from then on it is stale: it is served only until
whoever asks has had an answer, or as long as nobody can be asked. A name that the registry does not have is absent
for a short time; one about which nobody could be asked is unasked for a shorter one. What is in use does not leave.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush

from proxy.model import Cluster, Tenant
from proxy.registry.rows import Home, Row

UNASKED = 0.5  # seconds in which an outage is not tried again for the same name


class Entry:
    """One tenant. `fresh_until` is of the same clock as every `now`."""

    __slots__ = ("fresh_until", "home", "read_in", "row")

    def __init__(self, row: Row, home: Home, fresh_until: float, read_in: int) -> None:
        self.row = row
        self.home = home
        self.fresh_until = fresh_until
        self.read_in = read_in  # the configuration that gave it its home, by number

    @property
    def tenant(self) -> Tenant:
        return self.home.tenant


def canonical(name: str) -> str:
    """How a name is asked for: ids compare without regard to case."""
    return name.lower() if len(name) == 36 and name.count("-") == 4 else name


class _Absence:
    __slots__ = ("asked", "until")

    def __init__(self, until: float, asked: bool) -> None:
        self.until = until
        self.asked = asked


class Cache:
    """By tenant code; ids lead to codes. `in_use` names the tenants that are served at this moment."""

    def __init__(self, size: int, ttl: float, negative_ttl: float) -> None:
        self.size = size
        self.ttl = ttl
        self.negative_ttl = negative_ttl
        self.in_use: Callable[[str], bool] = lambda _: False
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._codes: dict[str, str] = {}
        self._absent: OrderedDict[str, _Absence] = OrderedDict()
        self._clusters: dict[str, list[Cluster]] = {}  # described by rows, once for each of them
        self._configuration = 0
        self._read: Callable[[Row], Home]
        self._ends: list[tuple[float, str]] = []  # when entries expire, as a heap

    def hold(self, size: int, ttl: float, negative_ttl: float) -> None:
        """From now on."""
        self.size, self.ttl, self.negative_ttl = size, ttl, negative_ttl

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        for entry in list(self._entries.values()):
            if entry.read_in != self._configuration:
                self._read_again(entry)
            yield entry

    # --- questions ------------------------------------------------------------------------------------

    def find(self, name_or_id: str) -> Entry | None:
        """Fresh or stale. A name goes before an id."""
        code = name_or_id if name_or_id in self._entries else self._codes.get(name_or_id.lower())
        if code is None:
            return None
        self._entries.move_to_end(code)
        entry = self._entries[code]
        if entry.read_in != self._configuration:
            self._read_again(entry)
        return entry

    def settled(self, name_or_id: str, now: float) -> bool:
        """Nobody needs to be asked."""
        entry = self.find(name_or_id)
        if entry is not None:
            return now < entry.fresh_until
        absence = self._absent.get(canonical(name_or_id))
        return absence is not None and now < absence.until

    def unasked(self, name_or_id: str) -> bool:
        """It may exist: nobody could be asked."""
        absence = self._absent.get(canonical(name_or_id))
        return absence is not None and not absence.asked

    def cluster(self, name: str) -> Cluster | None:
        found = self._clusters.get(name)
        return found[-1] if found else None

    def clusters(self) -> Iterator[Cluster]:
        return (found[-1] for found in self._clusters.values())

    def stale(self, now: float) -> list[str]:
        """Codes in use that should be asked about again."""
        return [
            code for code, entry in self._entries.items() if now >= entry.fresh_until and self.in_use(code)
        ]

    # --- answers --------------------------------------------------------------------------------------

    def put(self, row: Row, home: Home, now: float) -> Entry:
        code = row.tenant_code
        self._remove(code)
        entry = self._entries[code] = Entry(row, home, now + self.ttl, self._configuration)
        self._codes[row.tenant_id] = code
        for name in (code, row.tenant_id):
            self._absent.pop(canonical(name), None)
        self._describe(home)
        if row.expires_at is not None:
            heappush(self._ends, (row.expires_at, code))
            if len(self._ends) > 2 * len(self._entries) + 100:  # of rows that were put again and again
                self._ends = sorted(set(self._ends))
        self._make_room()
        return entry

    def put_absent(self, name: str, now: float) -> None:
        """The registry does not have it."""
        entry = self.find(name)
        if entry is not None:
            self._remove(entry.row.tenant_code)
        self._absence(name, _Absence(now + self.negative_ttl, True))

    def put_unasked(self, name: str, now: float) -> None:
        """Nobody could be asked. What is known of it stays."""
        if self.find(name) is None:
            self._absence(name, _Absence(now + UNASKED, False))

    def _absence(self, name: str, absence: _Absence) -> None:
        self._absent[canonical(name)] = absence
        self._absent.move_to_end(canonical(name))
        while len(self._absent) > max(self.size, 1):
            self._absent.popitem(last=False)

    def _make_room(self) -> None:
        over = len(self._entries) - max(self.size, 1)
        for code in list(self._entries)[:over] if over > 0 else ():
            if self.in_use(code):
                self._entries.move_to_end(code)
            else:
                self._remove(code)

    def _remove(self, code: str) -> None:
        entry = self._entries.pop(code, None)
        if entry is None:
            return
        if self._codes.get(entry.row.tenant_id) == code:
            del self._codes[entry.row.tenant_id]
        self._forget(entry.home)

    def _describe(self, home: Home) -> None:
        if home.cluster is not None:
            self._clusters.setdefault(home.cluster.name, []).append(home.cluster)

    def _forget(self, home: Home) -> None:
        own = home.cluster
        if own is not None:
            found = self._clusters[own.name]
            found.remove(own)
            if not found:
                del self._clusters[own.name]

    # --- another configuration ------------------------------------------------------------------------

    def reconfigured(self, read: Callable[[Row], Home]) -> None:
        """Tiers and clusters may be others: what is in use gets its home anew, all else when it is asked for."""
        self._read = read
        self._configuration += 1
        for code, entry in list(self._entries.items()):
            if self.in_use(code):
                self._read_again(entry)

    def _read_again(self, entry: Entry) -> None:
        entry.read_in = self._configuration
        self._forget(entry.home)
        entry.home = self._read(entry.row)
        self._describe(entry.home)

    # --- doubts ---------------------------------------------------------------------------------------

    def doubt(self, names: Iterable[str]) -> None:
        """Codes and ids whose rows may have changed. What nobody uses is forgotten, the rest is stale."""
        for name in names:
            self._absent.pop(canonical(name), None)
            entry = self.find(name)
            if entry is not None:
                self._doubt(entry)

    def doubt_all(self) -> None:
        self._absent.clear()
        for entry in list(self._entries.values()):
            self._doubt(entry)

    def _doubt(self, entry: Entry) -> None:
        entry.fresh_until = 0.0
        if not self.in_use(entry.row.tenant_code):
            self._remove(entry.row.tenant_code)

    def expired(self, wall: float) -> list[Entry]:
        """Those that have come to their end by the clock on the wall, each once."""
        found = {}
        while self._ends and self._ends[0][0] <= wall:
            entry = self._entries.get(heappop(self._ends)[1])
            if entry is not None and entry.row.expires_at is not None and entry.row.expires_at <= wall:
                found[entry.row.tenant_code] = entry
        return list(found.values())
