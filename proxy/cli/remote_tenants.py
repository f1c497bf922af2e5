"""`tiergate tenants` by the API: the tenants of a running proxy's registry, shown and changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxy.cli import tables
from proxy.cli.remote import Api, run, tenant
from proxy.cli.tables import Row

_PAGE = 1000
_LISTED = ("tenant_code", "tier", "state", "cluster", "shard_id", "max_connections", "max_qps", "source")
_ANY = {"If-Match": "*"}


def run_list(api: Api, limit: int, *, as_json: bool, **wanted: object) -> int:
    def work() -> None:
        found = list(_pages(api, limit, wanted))
        tables.say(found, [{key: row[key] for key in _LISTED} for row in found], as_json=as_json)

    return run(work, as_json=as_json)


def _pages(api: Api, limit: int, wanted: dict[str, object]) -> Iterator[Row]:
    """`limit` of them; 0: all."""
    cursor, left = "", limit
    while True:
        size = min(_PAGE, left) if limit else _PAGE
        page = api.get("/v1/tenants", limit=size, cursor=cursor, **wanted)
        yield from page["items"]
        cursor, left = page["next"], left - size
        if not cursor or (limit and left <= 0):
            return


def run_show(api: Api, name: str, *, as_json: bool) -> int:
    def work() -> None:
        found = api.get(tenant(name))
        _one(found, as_json=as_json)

    return run(work, as_json=as_json)


def run_route(api: Api, name: str, user: str, database: str, *, as_json: bool) -> int:
    def work() -> None:
        steps = api.get(tenant(name, "route"), user=user, database=database)["items"]
        tables.say(steps, steps, as_json=as_json)

    return run(work, as_json=as_json)


def run_create(api: Api, said: dict[str, Any], limits: dict[str, Any], key: str, *, as_json: bool) -> int:
    def work() -> None:
        headers = {"Idempotency-Key": key} if key else None
        _one(api.call("POST", "/v1/tenants", _meant(said) | limits, headers=headers).body, as_json=as_json)

    return run(work, as_json=as_json)


def run_set_tier(api: Api, name: str, said: dict[str, Any], *, as_json: bool) -> int:
    def work() -> None:
        seen = api.call("GET", tenant(name))  # the change is of what is there now
        headers = {"If-Match": seen.etag} if seen.etag else _ANY
        _one(api.call("POST", tenant(name, "tier"), _meant(said), headers=headers).body, as_json=as_json)

    return run(work, as_json=as_json)


def run_set_limits(api: Api, name: str, said: dict[str, Any], *, as_json: bool) -> int:
    def work() -> None:
        _one(api.call("PATCH", tenant(name), said, headers=_ANY).body, as_json=as_json)

    return run(work, as_json=as_json)


def run_verb(api: Api, name: str, verb: str, *, as_json: bool) -> int:
    def work() -> None:
        _one(api.call("POST", tenant(name, verb)).body, as_json=as_json)

    return run(work, as_json=as_json)


def run_delete(api: Api, name: str, *, with_usage: bool, as_json: bool) -> int:
    def work() -> None:
        api.call("DELETE", tenant(name), query={"with_usage": str(with_usage).lower()}, headers=_ANY)
        tables.say({"deleted": name}, [{"deleted": name}], as_json=as_json)

    return run(work, as_json=as_json)


def parsed(limits: list[str]) -> dict[str, Any]:
    """Of `max_qps=50 max_storage_gb=none`. Raises ValueError."""
    said: dict[str, Any] = {}
    for limit in limits:
        key, equals, value = limit.partition("=")
        if not equals:
            raise ValueError(f'"{limit}" is not KEY=VALUE')
        try:
            said[key] = None if value == "none" else float(value) if "." in value else int(value)
        except ValueError:
            raise ValueError(f'{key}: "{value}" is neither a number nor none') from None
    return said


def _meant(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if value not in (None, [])}


def _one(found: Row, *, as_json: bool) -> None:
    known = [{"": key, "value": value} for key, value in found.items() if value is not None]
    tables.say(found, known, as_json=as_json)
