"""What has been seen so far in a text that is being read."""

from __future__ import annotations

from proxy.model import PinReason
from proxy.sql.constants import TRANSACTION_ONLY
from proxy.sql.hidden import Hidden

ALL = "*"  # every parameter there is


class Findings:
    """The fields of a Verdict (see `verdict.py`), as they grow."""

    def __init__(self) -> None:
        self.pins: set[PinReason] = set()
        self.sets: dict[str, None] = {}
        self.resets: dict[str, None] = {}
        self.touched: set[str] = set()
        self.changed: set[str] = set()
        self.bound_names: dict[int, None] = {}
        self.hides: Hidden | None = None  # why names of parameters that it sets cannot be told
        self.resets_all = self.deallocates_all = self.discards_all = self.unlistens = self.looks = False
        self.asks_sequences = self.sets_sequences = self.alters_role = False
        self.prepares: list[tuple[str, bytes]] = []
        self.executes: dict[str, None] = {}
        self.deallocates: list[str] = []
        self.drops_databases: dict[str, None] = {}
        self.statements = 0
        self.stores = False  # what is being walked runs later

    def touch(self, name: str) -> None:
        self.touched.add(name)
        self.changed.add(name)

    def set(self, name: str) -> None:
        self.touch(name)
        if name in TRANSACTION_ONLY:
            return
        self.sets[name] = None
        if name == "session_authorization":
            self.pins.add(PinReason.ROLE)

    def reset(self, name: str) -> None:
        self.touched.add(name)
        if name not in TRANSACTION_ONLY:
            self.resets[name] = None
