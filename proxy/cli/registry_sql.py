"""`tiergate sql ... --registry`: makes the tenant registry's tables, brings them up to date, says what is there."""

from __future__ import annotations

from proxy.errors import ConfigError
from proxy.net.stream import LoginStream
from proxy.server.asking import ask, run

_INSTALLING = (
    0x7469657267737163  # the advisory lock of those who make the tables, until their connection ends
)
_TOLD_BY_STATEMENTS = 4  # the version since which there is a trigger for each kind of change
_COUNTS = """
SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE t.active AND (t.expires_at IS NULL
    OR t.expires_at > pg_catalog.now())) FROM public.tenant_registry AS t
"""
_TRIGGERS = """
SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger AS t
WHERE t.tgrelid = 'public.tenant_registry'::pg_catalog.regclass AND t.tgname LIKE 'tiergate\\_tell%'
    AND t.tgenabled <> 'D'
"""


async def version(stream: LoginStream) -> int:
    """0 where the tables are not there, or were made by hand."""
    ((there,),) = await ask(
        stream, "SELECT pg_catalog.to_regprocedure('tiergate_registry.version()') IS NOT NULL"
    )
    if there != "t":
        return 0
    ((number,),) = await ask(stream, "SELECT tiergate_registry.version()")
    return int(number or 0)


async def _by_hand(stream: LoginStream) -> bool:
    ((there,),) = await ask(stream, "SELECT pg_catalog.to_regclass('public.tenant_registry') IS NOT NULL")
    return there == "t"


async def install(stream: LoginStream, scripts: dict[int, str]) -> list[str]:
    await ask(stream, "SELECT pg_catalog.pg_advisory_lock($1::pg_catalog.int8)", str(_INSTALLING))
    before = await version(stream)
    if before > (newest := max(scripts)):
        raise ConfigError(
            f"registry {before} is newer than this program, which knows {newest}: nothing is changed"
        )
    by_hand = not before and await _by_hand(stream)
    for script in scripts.values():  # those of before too: they are harmless, and repair what was changed
        await run(stream, script)
    now = await version(stream)
    if by_hand:
        return [f"registry made by hand is now registry {now}"]
    return [f"registry {before} is now {now}" if before else f"registry {now} installed"]


async def upgrade(stream: LoginStream, scripts: dict[int, str]) -> list[str]:
    if not await version(stream) and not await _by_hand(stream):
        raise ConfigError("there is no registry; tiergate sql install --registry")
    return await install(stream, scripts)


async def status(stream: LoginStream, scripts: dict[int, str]) -> list[str]:
    number = await version(stream)
    if not number:
        if not await _by_hand(stream):
            raise ConfigError("there is no registry; tiergate sql install --registry")
        return ["registry made by hand, which tells of no changes: tiergate sql upgrade --registry"]
    newest = max(scripts)
    old = ", which is newer than this program" if number > newest else ""
    old = f", of which {newest} is the newest: tiergate sql upgrade --registry" if number < newest else old
    ((all_of_them, served),) = await ask(stream, _COUNTS)
    said = [f"registry {number}{old}", f"tenants: {all_of_them}, of which {served} are served"]
    ((triggers,),) = await ask(stream, _TRIGGERS)
    if triggers != ("2" if number < _TOLD_BY_STATEMENTS else "4"):
        said.append("WARNING: changes are not told, a trigger is missing: tiergate sql upgrade --registry")
    return said
