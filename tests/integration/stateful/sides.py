"""A session twice: through the proxy, and on a connection of its own to a database that is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.integration.stateful.steps import SERVICE, Step
from tests.rawclient import Frame, RawClient, error_fields
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.integration.running import Proxy


def heard(frames: list[Frame]) -> list[tuple[str, Any]]:
    """What must be equal: of errors not where in the server they come from, of columns not of which table they are."""
    found: list[tuple[str, Any]] = []
    for frame in frames:
        if frame.kind in "EN":
            fields = error_fields(frame.body)
            found.append((frame.kind, tuple(fields.get(key) for key in "SCMDHP")))
        elif frame.kind == "T":
            found.append(("T", _columns(frame.body)))
        elif frame.kind not in "SA":
            found.append((frame.kind, frame.body))
    return found


def _columns(body: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 2
    while at < len(body):
        end = body.index(0, at)
        found.append((body[at:end], body[end + 7 : end + 19]))  # behind the table and its column
        at = end + 19
    return found


def notified(frames: list[Frame]) -> list[bytes]:
    return [frame.body[4:] for frame in frames if frame.kind == "A"]


class Pair:
    """`fresh`: in a block that has done nothing, so that a tenant may still be named."""

    def __init__(
        self, proxy: Proxy, kind: str, direct: Callable[[], RawClient], proxied: Callable[[], RawClient]
    ) -> None:
        self.proxy, self.kind = proxy, kind
        self._ways = direct, proxied
        self.direct: RawClient
        self.proxied: RawClient
        self.session: Any
        self.enter()

    def enter(self) -> None:
        self.direct, self.proxied = (way() for way in self._ways)
        self.fresh = False
        self.told: tuple[list[bytes], list[bytes]] = ([], [])
        (self.session,) = self.proxy.call(
            lambda: [s for s in self.proxy.worker.plane.sessions if s.pid == self.proxied.pid]
        )
        self.keeps = self.session.user.keep_sequences

    def holds(self) -> bool:
        """It has a server connection when nothing is asked any more."""
        session = self.session
        wait_until(lambda: self.proxy.call(lambda: session.inquiry is None and not session.holding), 5)
        return session.server is not None

    def may(self, step: Step) -> bool:
        """What it would be refused, as README says, is left out."""
        status = self.direct.status
        several = step.way in ("text", "batch")
        if step.way == "text" and not _WRONG.isdisjoint(step.texts):
            return "EXECUTE" not in " ".join(step.texts)  # where a statement cannot be read it might be any
        if not self.keeps and any("val(" in text or "draw" in text for text in step.texts):
            return False
        if self.kind != SERVICE:
            return step.kind != "choose"
        if step.kind == "choose":
            if several:
                return status == "I"
            return status == "I" or self.fresh
        if any((several and _of_blocks(text)) or text.endswith("CHAIN") for text in step.texts):
            return False
        return step.kind != "everything" or status == "I"

    def do(self, step: Step) -> None:
        for request in step.requests:
            expected, found = self.direct.ask(request), self.proxied.ask(request)
            self.note(expected, found)
            assert heard(found) == heard(expected), (step, heard(found), heard(expected))
            other = self.direct.parameters.items() ^ self.proxied.parameters.items()
            assert not other, (step, sorted(other))
        begins = step.kind == "block" and step.alone
        self.fresh = self.direct.status == "T" and (
            begins or (self.fresh and step.kind == "choose" and step.alone)
        )

    def note(self, expected: list[Frame], found: list[Frame]) -> None:
        self.told[0].extend(notified(expected))
        self.told[1].extend(notified(found))

    def compare(self, text: str) -> None:
        self.do(Step("show", (text,), "simple"))

    def same_notifications(self) -> None:
        def same() -> bool:
            self.compare("SELECT 1")
            return sorted(self.told[0]) == sorted(self.told[1])

        wait_until(same, 3, what="the same notifications")

    def leave(self, way: str) -> None:
        for client in (self.direct, self.proxied):
            {"close": client.close, "hang up": client.hang_up, "reset": client.reset}[way]()


_WRONG = {"SELEC", "SELECT tenant_id FRM ledger"}


def _of_blocks(text: str) -> bool:
    return text.split()[0] in ("BEGIN", "START", "COMMIT", "ROLLBACK", "END", "SAVEPOINT", "RELEASE")
