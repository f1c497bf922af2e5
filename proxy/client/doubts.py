"""What a session does not know of its server connection, until it has asked."""

from __future__ import annotations


class Doubts:
    """What is to be asked when the session is at rest.

    sets, resets: names of parameters. certain: all was set in transactions of its own, which have not failed if
    `last_error` is still the server's. causes: one of a pin may be gone. failed_at: how much had been asked of the
    server when it would not answer; struck: how often something has cancelled that question. stopgap: therefore the
    session is pinned. sequences: numbers may have been drawn. numbered: the session has said itself what the number of a
    sequence is.
    """

    __slots__ = (
        "causes",
        "certain",
        "failed_at",
        "last_error",
        "numbered",
        "resets",
        "sequences",
        "sets",
        "stopgap",
        "struck",
    )

    def __init__(self, last_error: bytes) -> None:
        self.sets: set[str] = set()
        self.resets: set[str] = set()
        self.certain = True
        self.last_error = last_error
        self.causes = False
        self.failed_at = -1
        self.struck = 0
        self.stopgap = False
        self.sequences = self.numbered = False
