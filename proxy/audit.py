"""Who has done what by the HTTP API, told to the log: one function an event."""

from __future__ import annotations

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
