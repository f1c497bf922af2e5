"""What is asked of a connection before it is lent again: a reset, a ROLLBACK, whether it is still there.

It is `resetting` meanwhile. If the answer is good it is idle again, else it is closed, as is one that no reset clears.
"""

from __future__ import annotations

from time import monotonic

from proxy.admission.accounts import Counter
from proxy.admission.queue import FairQueue
from proxy.model import PoolMode, ServerOptions
from proxy.protocol.lifecycle import ServerState
from proxy.server.connection import ServerConnection
from proxy.server.lending import Lending
from proxy.stats import PoolStats


class Cleaning(Lending):
    __slots__ = ("_check_delay", "_lifetime", "_options", "last_used", "mode")

    def __init__(
        self,
        caps: tuple[Counter, ...],
        queue: FairQueue,
        stats: PoolStats,
        mode: PoolMode,
        options: ServerOptions,
    ) -> None:
        super().__init__(caps, queue, stats)
        self.mode = mode
        self.options = options
        self.last_used = monotonic()

    @property
    def options(self) -> ServerOptions:
        return self._options

    @options.setter
    def options(self, options: ServerOptions) -> None:
        self._options = options
        self._check_delay = options.server_check_delay if options.server_check_query else 0.0
        self._lifetime = options.server_lifetime

    def _settle(self, server: ServerConnection, event: str, now: float) -> None:
        """Back among the idle."""
        raise NotImplementedError

    def drop(self, server: ServerConnection) -> None:
        """It is not to be used again."""
        raise NotImplementedError

    def _clean(self, server: ServerConnection) -> None:
        """Waits for cancels, then resets; called again when either is over."""
        if server.cancels:
            return
        if server.spent:
            self.drop(server)
            return
        if server.dirty:
            query = self.options.server_reset_query
            if not query:
                self.drop(server)
                return

            def reset(succeeded: bool) -> None:
                if succeeded:
                    server.was_reset()
                    self.cleaned(server)
                else:
                    self.drop(server)

            server.run(query, reset)
            return
        self._settle(server, "cleaned", monotonic())

    def cleaned(self, server: ServerConnection) -> None:
        if server.state is ServerState.RESETTING and not server.pipeline:  # a job of ours may be under way
            self._clean(server)

    def _check(self, server: ServerConnection) -> None:
        self._move(server, "check")
        self._run(server, self.options.server_check_query)

    def _run(self, server: ServerConnection, query: str) -> None:
        """A query of ours, without which the connection is not to be used again."""

        def over(succeeded: bool) -> None:
            if succeeded:
                self.cleaned(server)
            else:
                self.drop(server)

        server.run(query, over)

    def rollback(self, server: ServerConnection) -> None:
        """Takes back a connection whose client left inside a transaction while nothing was owed."""
        server.link = None
        if self.mode is PoolMode.SESSION:
            server.dirty = True
        self._move(server, "clean")
        self._give_permits(server, monotonic())
        self._run(server, "ROLLBACK")
