"""Who has done what by the HTTP API, told to the log: one function an event."""

from __future__ import annotations

from collections.abc import Mapping

from proxy import log

_log = log.get("audit")


def acted(actor: str, verb: str, name: str = "") -> None:
    """A verb that was carried out."""
    _log.info("operator acted", actor=actor, verb=verb, name=name)


def failed(actor: str, verb: str, name: str, reason: str) -> None:
    """A verb that could not be carried out."""
    _log.info("operator could not act", actor=actor, verb=verb, name=name, reason=reason)


def refused(actor: str, method: str, path: str) -> None:
    """A request that its bearer may not make."""
    _log.warning("request refused", actor=actor, method=method, path=path)


def stranger(address: str, method: str, path: str) -> None:
    """A request with a token that nobody has."""
    _log.info("unknown token", address=address, method=method, path=path)


def tenant_changed(
    actor: str,
    action: str,
    name: str,
    identity: str,
    before: Mapping[str, object] | None,
    after: Mapping[str, object] | None,
) -> None:
    """A tenant of the registry was created, changed or deleted: the columns that differ, as they were and are."""
    old, new = before or {}, after or {}
    differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    _log.info(
        "tenant changed",
        actor=actor,
        action=action,
        tenant=name,
        id=identity,
        before={key: old[key] for key in differ if key in old},
        after={key: new[key] for key in differ if key in new},
    )
