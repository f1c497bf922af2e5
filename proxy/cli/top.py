"""`tiergate pools` and `tiergate top`: what a running proxy does now, once or as a table that lives."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from typing import Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from proxy.cli import tables
from proxy.cli.remote import Api, run
from proxy.cli.tables import Row

_POOLS = (
    "cluster", "database", "user", "pool_mode", "cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_login", "maxwait",
    "paused",
)  # fmt: skip
_COUNTED = ("queries", "transactions", "errors")


def run_pools(api: Api, *, as_json: bool) -> int:
    def work() -> None:
        found = api.get("/v1/pools", limit=10_000)["items"]
        tables.say(found, [{key: row[key] for key in _POOLS} for row in found], as_json=as_json)

    return run(work, as_json=as_json)


def run_top(api: Api, interval: float, rows: int, rounds: int, *, as_json: bool) -> int:
    """`rounds` of 0: until it is interrupted."""

    def work() -> None:
        last, console = _seen(api), tables.paper()
        alive = console.is_terminal and not as_json
        with Live(console=console, auto_refresh=False) if alive else nullcontext() as live:
            done = 0
            while not rounds or done < rounds:
                time.sleep(interval)
                now = _seen(api)
                told, last = _between(last, now), now
                told["tenants"] = told["tenants"][:rows]
                if as_json:
                    typer.echo(json.dumps(told, ensure_ascii=False))
                elif live is not None:
                    live.update(_page(told), refresh=True)
                else:
                    console.print(_page(told))
                done += 1

    try:
        return run(work, as_json=as_json)
    except KeyboardInterrupt:
        return 0


def _seen(api: Api) -> dict[str, Any]:
    return {
        "at": time.monotonic(),
        "tenants": {row["name"]: row for row in api.get("/v1/activity", limit=10_000)["items"]},
        "pools": api.get("/v1/pools", limit=10_000)["items"],
        "workers": api.get("/v1/workers")["items"],
    }


def _between(last: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What is now, and how much a second was done since `last`; the busiest tenants first."""
    seconds = max(now["at"] - last["at"], 1e-3)
    found: list[Row] = []
    for name, row in now["tenants"].items():
        before = last["tenants"].get(name, row)
        rates = {f"{key}/s": round(max(0, row[key] - before[key]) / seconds, 1) for key in _COUNTED}
        shown = {key: row[key] for key in ("tier", "cluster", "clients", "servers", "waiting")}
        found.append({"tenant": name, **shown, **rates})
    found.sort(key=lambda row: (-row["queries/s"], -row["waiting"], -row["clients"], row["tenant"]))
    pools = now["pools"]
    total = {
        "workers": len(now["workers"]),
        "clients": sum(row["cl_active"] + row["cl_waiting"] for row in pools),
        "waiting": sum(row["cl_waiting"] for row in pools),
        "servers": sum(
            row["sv_active"] + row["sv_idle"] + row["sv_tested"] + row["sv_login"] for row in pools
        ),
        "queries/s": round(sum(row["queries/s"] for row in found), 1),
        "errors/s": round(sum(row["errors/s"] for row in found), 1),
    }
    return {"total": total, "tenants": found}


def _page(told: dict[str, Any]) -> Group:
    head = "   ".join(f"{key} {value:g}" for key, value in told["total"].items())
    return Group(
        Text(head, style="bold"),
        tables.made(told["tenants"]) if told["tenants"] else Text("no tenant is active"),
    )
