"""The table of methods towards clients: auth_type -> how it is done."""

from __future__ import annotations

from collections.abc import Callable

from proxy.auth import scram
from proxy.auth.exchange import Asking, Exchange
from proxy.auth.md5 import Md5
from proxy.auth.plain import Plain
from proxy.auth.sasl import Sasl
from proxy.auth.trust import Cert, Trust

METHODS: dict[str, Callable[[Asking], Exchange]] = {
    "scram-sha-256": Sasl,
    "md5": Md5,
    "plain": Plain,
    "trust": Trust,
    "cert": Cert,
}


def exchange(auth_type: str, asking: Asking) -> Exchange:
    """As in PostgreSQL, md5 becomes SCRAM for a user whose stored secret is a SCRAM verifier."""
    if auth_type == "md5" and asking.stored.startswith(scram.MECHANISM + "$"):
        return Sasl(asking)
    return METHODS[auth_type](asking)
