"""What a request may have to wait for, although its session has a server connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from proxy.server.connection import ServerConnection


class EvictFirst(Exception):
    """The statement needs databases to which no idle connection may exist."""

    def __init__(self, databases: tuple[str, ...]) -> None:
        super().__init__()
        self.databases = databases


class AnswersFirst(Exception):
    """What the request means depends on what becomes of an earlier one that has not been answered yet, or of what
    is sent ahead of it."""

    def __init__(self, ahead: bytes = b"") -> None:
        super().__init__()
        self.ahead = ahead


class Owing(NamedTuple):
    """Parameters to be set again when the text that may have reset them is over, and the last error or ROLLBACK
    before it."""

    parameters: Mapping[str, str]
    last_error: bytes


def wait_for_answers(server: ServerConnection) -> None:
    """The request waits until nothing is owed any more. A server that reads the data of a COPY answers nothing
    before it has them: whatever else it is sent fails there."""
    if server.pipeline.head() is not None and not server.copy_in:
        raise AnswersFirst
