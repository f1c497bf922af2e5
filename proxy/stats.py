"""Counters of the data plane: plain integers, added to on the hot path and translated only when read."""

from __future__ import annotations

# Upper bounds of the query duration histogram in seconds; the last bucket is open.
DURATION_BOUNDS: tuple[float, ...] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
_SHORTEST = DURATION_BOUNDS[0]
_BUCKETS = len(DURATION_BOUNDS) + 1

# By which a tenant's errors are told apart: whoever writes SQL may raise those it makes up.
_MOST_SQLSTATES = 50


class Histogram:
    """Counts of durations by bucket (not cumulative), and their sum in seconds."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        buckets: list[int] = [0] * _BUCKETS
        self.buckets = buckets  # an array where this is compiled
        self.total = 0.0

    def add(self, seconds: float) -> None:
        bucket = 0
        if seconds > _SHORTEST:  # most are short: nearly always over after a few
            for bound in DURATION_BOUNDS:
                if seconds <= bound:
                    break
                bucket += 1
        self.buckets[bucket] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        return sum(self.buckets)


class TenantStats:
    """What one tenant has done since the process started. Queries are counted at each ReadyForQuery.

    `throttled` transactions waited for the tenant's rate, `refused_rate` and `refused_quota` were refused because of it
    and of the day's quota. `bytes` of both directions are added up at each ReadyForQuery.
    """

    __slots__ = (
        "bytes", "durations", "errors", "queries", "refused_quota", "refused_rate", "server_seconds", "throttled",
        "throttled_seconds",
        "transactions", "wait_seconds", "waits",
    )  # fmt: skip

    def __init__(self) -> None:
        self.queries = 0
        self.transactions = 0
        self.server_seconds = 0.0  # for which it had server connections
        self.waits = 0
        self.wait_seconds = 0.0
        self.bytes = 0
        self.throttled = self.refused_rate = self.refused_quota = 0
        self.throttled_seconds = 0.0
        self.durations = Histogram()
        self.errors: dict[str, int] = {}

    def error(self, sqlstate: str) -> None:
        if sqlstate not in self.errors and len(self.errors) >= _MOST_SQLSTATES:
            sqlstate = "other"
        self.errors[sqlstate] = self.errors.get(sqlstate, 0) + 1


Counts = tuple[float, float, float, float, float, float, float, float]


class PoolStats:
    """What one pool has carried; the columns of SHOW STATS. Times in seconds, traffic in bytes.

    `turn` begins a new period. Averages are over the last whole period and what has gone of the one of now,
    as PgBouncer's are.
    """

    __slots__ = (
        "_newer", "_older", "bytes_received", "bytes_sent", "queries", "query_seconds", "server_assignments",
        "transactions", "wait_seconds", "xact_seconds",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.transactions = 0
        self.queries = 0
        self.server_assignments = 0
        self.bytes_received = 0  # from clients
        self.bytes_sent = 0  # to clients
        self.xact_seconds = 0.0
        self.query_seconds = 0.0
        self.wait_seconds = 0.0
        self._older = self._newer = (now, self.counts())

    def counts(self) -> Counts:
        return (
            self.server_assignments, self.transactions, self.queries, self.bytes_received, self.bytes_sent,
            self.xact_seconds, self.query_seconds, self.wait_seconds,
        )  # fmt: skip

    def turn(self, now: float) -> None:
        self._older, self._newer = self._newer, (now, self.counts())

    def of_late(self, now: float) -> tuple[float, list[float]]:
        """The seconds that averages are over, and by how much each of the counts has grown in them."""
        began, before = self._older
        return max(now - began, 1.0), [n - m for n, m in zip(self.counts(), before, strict=True)]

    def add_query(self, query_seconds: float, xact_seconds: float) -> None:
        """One ReadyForQuery; `xact_seconds` is 0 where it did not end a transaction."""
        self.queries += 1
        self.query_seconds += query_seconds
        if xact_seconds:
            self.transactions += 1
            self.xact_seconds += xact_seconds


class ProcessStats:
    """Counts of the whole process."""

    __slots__ = (
        "cancels", "client_connections", "config_refused", "login_failures", "pins", "rejected_connections",
        "server_connections", "server_failures", "timeouts",
    )  # fmt: skip

    def __init__(self) -> None:
        self.client_connections = 0  # accepted so far
        self.rejected_connections = 0  # refused before a login
        self.login_failures = 0
        self.server_connections = 0  # opened so far
        self.server_failures = 0  # connects or logins that failed
        self.cancels = 0
        self.config_refused = False  # what was to be loaded last; what was before it is in force
        self.timeouts: dict[str, int] = {}  # limit name -> times it struck
        self.pins: dict[str, int] = {}  # PinReason name -> times it was taken

    def timeout(self, name: str) -> None:
        self.timeouts[name] = self.timeouts.get(name, 0) + 1

    def pin(self, name: str) -> None:
        self.pins[name] = self.pins.get(name, 0) + 1
