"""Somebody who waits for a permit and is only counted."""

from __future__ import annotations

from collections.abc import Callable

from proxy.admission.accounts import Seeker


class Call(Seeker):
    def __init__(self, call: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.free = call  # type: ignore[method-assign,assignment]
