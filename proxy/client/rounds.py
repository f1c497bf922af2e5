"""Looks at all sessions again and again, at some of them in each turn, so that thousands hold up nobody's transaction.

Seen to is what nothing else tells of: that a client has asked nothing for too long, that its tenant is served no more, and
that it has not followed what has changed of its tenant.
"""

from __future__ import annotations

from proxy.client.following import end_unserved
from proxy.client.idling import end_idle
from proxy.client.plane import Plane
from proxy.client.session import Session
from proxy.protocol.lifecycle import SessionState
from proxy.stats import ProcessStats


class Rounds:
    """Each takes `turns` turns, or fewer where there are fewer sessions."""

    __slots__ = ("_ahead", "_part", "_plane", "_process", "_turns")

    def __init__(self, plane: Plane, process: ProcessStats, turns: int) -> None:
        self._plane = plane
        self._process = process
        self._turns = turns
        self._ahead: list[Session] = []
        self._part = 0  # of a round that is looked at in one turn

    def look(self, now: float) -> None:
        sessions = self._plane.sessions
        if not self._ahead:
            self._ahead = list(sessions)
            self._part = -(-len(self._ahead) // self._turns)
        for _ in range(min(self._part, len(self._ahead))):
            session = self._ahead.pop()
            if session in sessions:
                self._look_at(session, now)

    def _look_at(self, session: Session, now: float) -> None:
        if session.epoch != self._plane.registry.epoch and (
            session.state is SessionState.IDLE or (session.server is not None and session.rests)
        ):
            session.reroute()
        end_unserved(session)
        end_idle(session, self._process, now)
