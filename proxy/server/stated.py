"""What has been set on one server connection, and the messages by which more is.

A change is a batch of its own (`apply`), whatever becomes of what follows. If that must not run where the change has
failed, it is `assured`: the last thing that the change does is to prepare an empty statement, and the first thing that
follows is to describe that statement, which fails where it is not there, so that the server skips all up to the
next Sync. (Its name is never used twice, nor can it be guessed: nobody else can have made it.)

One that only says whom the connection speaks for can also `enter` a transaction ahead of its first statement, which the
server then skips where the change fails. It lasts if the transaction commits; if not, or if nobody has heard that it
did, the connection speaks for nobody knows whom (UNKNOWN), and must be told anew. Its states: nothing has entered
(`entered` is ""), ALONE: a batch that is a transaction, IN_BLOCK: a block, which must be heard to commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from secrets import token_hex
from time import monotonic

from proxy.net.transport import Receiver
from proxy.protocol import pipeline as owed
from proxy.protocol import state as states
from proxy.protocol.pipeline import DROP, Expect, Pipeline
from proxy.protocol.seal import PARAMETER
from proxy.protocol.state import EMPTY, UNKNOWN, State, expect_set, intern, spoken, with_parameter
from proxy.protocol.statements import PREFIX
from proxy.server.sealing import NEVER, Sealer
from proxy.wire import encode

_numbers = count(1)
_secret = token_hex(8).encode()


class Stated(Receiver):
    __slots__ = (
        "alone", "entered", "login_parameters", "pipeline", "reported", "seal_due", "sealer", "values",
    )  # fmt: skip

    def __init__(self, parameters: dict[str, str]) -> None:
        states.display_names.update({name.lower(): name for name in parameters})
        self.login_parameters = {name.lower(): value for name, value in parameters.items()}
        self.reported: State = intern(self.login_parameters)  # all that the server has reported
        self.values: State = EMPTY  # what has been set on it beyond its login
        self.sealer: Sealer | None = None
        self.seal_due = NEVER  # when the tenant among `values` must be sealed or told anew
        self.pipeline = Pipeline()
        self.entered = ""  # the parameter that has entered the transaction which is open or under way
        self.alone = False

    def _change(self, needs: State) -> dict[str, str | None]:
        """From here on it has what it needs, if these changes are made."""
        before, self.values = self.values, needs
        changes = states.difference(before, needs, self.login_parameters)
        if self.sealer is not None:
            self.seal_due = self.sealer.renew(changes, needs, self.seal_due)
            self.sealer.add(changes)
        else:
            self.seal_due = NEVER
        return changes

    def apply(self, needs: State, mark: bytes = b"") -> bytes:
        """The messages that bring it to `needs`, with their replies queued as dropped; b"" if it is there."""
        before = self.values
        if before is needs and (self.sealer is None or monotonic() < self.seal_due):
            return b""
        changes = self._change(needs)
        if not changes:
            return b""
        return states.set_first(self.pipeline, states.in_order(changes, before, needs), mark)

    def apply_assured(self, needs: State) -> bytes:
        """The same, and the batch that comes next, or the Query, is skipped if that fails."""
        mark = PREFIX + b"sure_%s_%d" % (_secret, next(_numbers))
        out = self.apply(needs, mark)
        return out + states.look_for(self.pipeline, mark) if out else b""

    def can_enter(self, needs: State, guc: str) -> bool:
        """What it lacks is to know whom to speak for, and it knew that of somebody else."""
        has, wants = spoken(self.values, guc), spoken(needs, guc)
        if has.name is None or not wants.telling or has.name == wants.name:
            return False
        if has.beside is wants.beside:
            return True
        changes = states.difference(self.values, needs, self.login_parameters)
        return len(changes) == 1 and states.certain(self.values.parameters, needs.parameters)

    def enter(self, needs: State, guc: str, *, alone: bool) -> bytes:
        """The messages by which this, where it can, enters the transaction whose own come behind them."""
        self.entered, self.alone = guc, alone
        if self.sealer is None:
            self.values, self.seal_due = needs, NEVER
            expect_set(self.pipeline)
            return spoken(needs, guc).telling
        changes = self._change(needs)
        seal = changes.get(PARAMETER)
        out = states.set_within(self.pipeline, {guc: changes[guc] or ""})
        return out + states.set_within(self.pipeline, {PARAMETER: seal}) if seal else out

    def settle(self, *, open: bool, undone: bool) -> None:
        """The server is ready for a query, in an open transaction or in none."""
        if open:
            self.alone = False
        else:
            if undone or not self.alone:
                self.values = with_parameter(self.values, self.entered, UNKNOWN)
                self.seal_due = 0.0  # whoever keeps the connection tells it anew
            self.entered = ""

    def set_again(self, changes: Mapping[str, str], *, within: bool = False) -> bytes:
        """Follows what may have reset `changes`: `within` a batch, or a text (no harm if it fails in a failed one)."""
        wanted: dict[str, str | None] = {**changes}
        if self.sealer is not None:
            self.sealer.add(wanted)
        out = states.set_again(self.pipeline, list(wanted.items()), tolerant=not within)
        if within:
            return out
        self.pipeline.expect(Expect(owed.SYNC, DROP, tolerant=True))
        return out + encode.SYNC
