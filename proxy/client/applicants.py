"""Who has said who it is, and who has proved it: what `login.py` makes of a startup packet, and what is read of it for each
client that says the same."""

from __future__ import annotations

from typing import Any

from proxy.auth.exchange import Asking, Exchange
from proxy.auth.methods import exchange
from proxy.model import Tenant, User
from proxy.protocol.state import State
from proxy.routing.identify import LoginFacts


class Login:
    """Clients that have authenticated. `asked` are the settings of their startup packet, without the
    tenant; `replication` is "" for an ordinary session; who `chooses` may say in SQL which tenant it speaks for."""

    __slots__ = (
        "asked", "chooses", "database", "entrance", "is_console", "protocol_minor", "replication", "tenant", "tls", "user",
    )  # fmt: skip

    def __init__(
        self,
        user: User,
        tenant: Tenant | None,
        database: str,
        asked: State,
        replication: str,
        protocol_minor: int,
        tls: bool,
        is_console: bool,
        chooses: bool = False,
    ) -> None:
        self.user = user
        self.tenant = tenant
        self.database = database
        self.asked = asked
        self.replication = replication
        self.protocol_minor = protocol_minor
        self.tls = tls
        self.is_console = is_console
        self.chooses = chooses
        self.entrance: Any = None  # an Entrance, which knows this class, as it was last used


class Applicant:
    """`negotiation` is what is said before anything else of a protocol that is not known here; `login` what was made
    of it at the registry's epoch `epoch`. `claim` is the first tenant that it names, true or not."""

    __slots__ = (
        "_exchange", "asking", "claim", "epoch", "facts", "login", "method", "minor", "negotiation", "replication", "tls",
        "user",
    )  # fmt: skip

    def __init__(
        self,
        facts: LoginFacts,
        replication: str,
        minor: int,
        negotiation: bytes,
        tls: bool,
        method: str,
        asking: Asking,
        user: User | None,
        epoch: int,
        claim: str,
    ) -> None:
        self.facts = facts
        self.replication = replication
        self.minor = minor
        self.negotiation = negotiation
        self.tls = tls
        self.method = method
        self.asking = asking
        self.user = user
        self.epoch = epoch
        self.claim = claim
        self.login: Login | None = None
        self._exchange: Exchange | None = None  # where one will do for all

    def talk(self) -> Exchange:
        """In which one such client proves who it is."""
        if self._exchange is not None:
            return self._exchange
        made = exchange(self.method, self.asking)
        if made.is_for_all:
            self._exchange = made
        return made
