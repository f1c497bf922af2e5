"""The keys that prove a tenant to a cluster's databases: in the cluster's table, or a file with one a line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from proxy.model import ClientOptions, Seal, SealKey, ServerOptions
from proxy.settings import values
from proxy.settings.reader import Reader

# A seal is renewed when half of its life is over; below this that would be all the time.
MIN_LIFETIME = 1.0


def read_seal(
    reader: Reader, said: dict[str, Any], where: str, server: ServerOptions, client: ClientOptions
) -> Seal | None:
    """None where there are no keys: the cluster's tenants are not sealed."""
    keys = tuple(SealKey(*key) for key in said.get("seal_keys", ()))
    name = said.get("seal_keys_file", "")
    if name:
        if keys:
            reader.problem(where, "seal_keys_file", "seal_keys is given as well; keep one of them")
        keys = _of_file(reader, name, where)
    if not keys:
        return None
    for key_id, count in Counter(key.id for key in keys).items():
        if count > 1:
            reader.problem(where, "seal_keys_file" if name else "seal_keys", f'has key "{key_id}" twice')
    if server.seal_lifetime < MIN_LIFETIME:
        reader.missing(
            "proxy", "seal_lifetime", f"must be at least {MIN_LIFETIME:g}s where tenants are sealed"
        )
    path = reader.absolute(name) if name else ""
    return Seal(client.tenant_guc, server.seal_lifetime, keys, path)


def _of_file(reader: Reader, name: str, where: str) -> tuple[SealKey, ...]:
    try:
        return parse_keys(Path(reader.absolute(name)).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        reader.problem(where, "seal_keys_file", f'cannot read "{name}": {reason}')
    except ValueError as error:
        reader.problem(where, "seal_keys_file", f'"{name}" {error}')
    return ()


def parse_keys(text: str) -> tuple[SealKey, ...]:
    """The lines `id:secret` of a file of keys, the newest last. Raises ValueError, without the line's text."""
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            try:
                keys.append(SealKey(*values.seal_key(line.strip())))
            except ValueError:
                raise ValueError(f"line {number} is not id:secret ({values.SEAL_KEYS.says})") from None
    if not keys:
        raise ValueError("has no key in it")
    return tuple(keys)


def format_keys(keys: tuple[SealKey, ...]) -> str:
    return "".join(f"{key.id}:{key.secret}\n" for key in keys)
