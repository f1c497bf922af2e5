"""Which statement is the unnamed one, of a client and of its server connection, while the answers are still to come."""

from __future__ import annotations

from proxy.client.conversation import Conversation
from proxy.protocol.statements import STRANGE, Statement
from proxy.server.connection import ServerConnection


class UnnamedIs:
    """Makes `own` the unnamed statement of both; called, takes that back unless something newer has come. The
    client's own Parse (`fresh`) leaves none if it fails; of a server that skipped the request nothing is known."""

    __slots__ = ("_before", "_fresh", "_newer", "_own", "_server", "_session", "_stands")

    def begin(
        self, session: Conversation, server: ServerConnection, own: Statement | None, fresh: bool
    ) -> None:
        self._own, self._fresh, self._stands = own, fresh, True
        self._newer: UnnamedIs | None = None
        self._session, self._server = session, server
        self._before = session.unnamed
        older = session.unnamed_by
        if server.pipeline.head() is not None and isinstance(older, UnnamedIs):
            older._newer = self
        session.unnamed_by = self
        session.unnamed = server.unnamed = self._own
        server.unnamed_as = None
        server.unnamed_in = server.pipeline.asked

    def __call__(self, failed: bool) -> None:
        if self._server.unnamed is self._own:
            self._server.unnamed = None if failed else STRANGE
        self._stands = failed and self._fresh
        left = None if self._stands else self._before
        # Those that came behind it and have been taken back themselves leave what it leaves.
        last = self
        newer = self._newer
        while newer is not None and not newer._stands:
            last, newer = newer, newer._newer
        if newer is not None:
            newer._before = left
        elif self._session.unnamed_by is last:
            self._session.unnamed = left
        if last is not self:
            self._newer = last
            last._before = left


def unnamed_is(
    session: Conversation, server: ServerConnection, own: Statement | None, fresh: bool
) -> UnnamedIs:
    made: UnnamedIs = UnnamedIs.__new__(UnnamedIs)
    made.begin(session, server, own, fresh)
    return made
