"""Watches the configuration file, so that a change is live within a second without a signal.

A look is one stat: what stands behind the name, whether the file was written to, replaced by another, or is a symbolic link
that points elsewhere now (as Kubernetes swaps ConfigMaps). What looks another way is read at the next look, if it has
not changed again by then: so it is whole. It is reloaded if its text is not the one that runs; a text that was refused
is not tried again until there was another. A file that is gone or empty is in the middle of being written, and is waited
for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from proxy import log, settings
from proxy.errors import ConfigError
from proxy.settings import Settings

_log = log.get("serve")
_LOOKS = 0.25  # seconds between two
_PATIENCE = 8  # looks at a file that is not there, before that is said

_Look = tuple[int, ...]


class Watch:
    """`running` is the configuration in force; `reload` takes up what the file says, or says why not."""

    def __init__(self, running: Callable[[], Settings], reload: Callable[[], Awaitable[None]]) -> None:
        self._running = running
        self._reload = reload
        self._seen: _Look = ()  # whose text is known
        self._coming: _Look = ()  # which may still change
        self._refused = ""  # the digest of a text
        self._absent = 0  # looks

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(_LOOKS)
            try:
                await self._follow()
            except Exception as error:
                _log.exception("watching the configuration file failed", error)

    async def _follow(self) -> None:
        running = self._running()
        digest = self.look(running) if running.process.watch_config else ""
        if digest:
            await self._reload()
            self._refused = "" if self._running().digest == digest else digest

    def look(self, running: Settings) -> str:
        """The digest of a text that is to be reloaded, "" if there is none."""
        now = _look(running.path)
        if now == self._seen:
            self._absent = 0
            return ""
        if not now or now != self._coming:
            self._coming = now
            self._absent = 0 if now else self._absent + 1
            if self._absent == _PATIENCE:
                _log.warning("the configuration file is not there, the old configuration stays")
            return ""
        try:
            text = settings.read(running.path)
        except ConfigError as error:
            _log.error("the configuration file cannot be read", problems=list(error.problems))
            self._seen = now
            return ""
        if not text.strip():
            return ""
        self._seen = now
        digest = settings.digest(text)
        if digest == running.digest and self._refused:
            return digest  # it is right again, which is to be known
        return "" if digest in (running.digest, self._refused) else digest


def _look(path: str) -> _Look:
    """Empty where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
