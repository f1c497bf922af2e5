"""A cluster's limit falls while its transactions hinder each other, over two workers."""

from __future__ import annotations

from pathlib import Path

from proxy.cli.embedded import EmbeddedServer
from tests.integration.servers import backends
from tests.integration.test_worker_caps import Load, text
from tests.integration.test_workers import running
from tests.waiting import wait_until

# One at a time gets on, so that two take twice as long.
ALONE = "SELECT 1 FROM (SELECT pg_advisory_xact_lock(4711), pg_sleep(0.004)) AS x"


def test_the_limit_falls_and_says_why(shared: EmbeddedServer, tmp_path: Path) -> None:
    cluster = {"adaptive_concurrency": True, "min_concurrency": 2, "max_connections": 12}
    config = text(shared, 2, cluster__shared=cluster)
    with running(tmp_path / "tiergate.toml", config) as fleet:

        def row() -> dict[str, str | None]:
            rows = fleet.console("SHOW CONCURRENCY")
            return rows[0] if rows else {}

        with Load(fleet, ["app@std_1"], ALONE):
            wait_until(lambda: int(row().get("baseline_us") or 0) > 0, 40)
        assert (row()["min"], row()["max"]) == ("2", "12")
        with Load(fleet, ["app@std_1"] * 8 + ["app@std_2"] * 4, ALONE) as load:
            # At once, or, where the baseline has followed the latency, when it tries fewer.
            wait_until(lambda: int(row()["limit"] or 0) <= 6, 240)
            wait_until(lambda: backends(shared, "usename = 'app'") <= 6, 20)
            assert load.errors == []
            assert fleet.metric("tiergate_concurrency_limit") <= 12
            assert fleet.metric("tiergate_concurrency_latency_seconds") > 0.004
            assert fleet.metric("tiergate_concurrency_why") == 1
            assert min(load.served) > 0, "nobody is left out"
