"""What a supervisor hands on to the program that takes its place: descriptors, workers, and what it knew.

The place is taken by exec: the pid stays, so nobody who watches it notices, and so do the children. What is said
here is JSON in a memory file, whose descriptor is in an environment variable.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from proxy.supervisor.process import BLOCKED_AT_START, program

VARIABLE = "TIERGATE_HERITAGE"
FORMAT = 1  # another number for what a program of today could not take over

Heritage = dict[str, Any]


def receive() -> Heritage | None:
    """What the program before has left, if this one takes its place."""
    fd = os.environ.pop(VARIABLE, None)
    if fd is None:
        return None
    with open(int(fd), encoding="utf-8") as file:
        file.seek(0)
        heritage: Heritage = json.load(file)
    for kept in heritage["descriptors"]:
        os.set_inheritable(kept, False)
    return heritage


def write(heritage: Heritage, descriptors: Iterable[int]) -> int:
    """The descriptor of a file with all of it."""
    fd = os.memfd_create("tiergate-heritage")
    with open(fd, "w", encoding="utf-8", closefd=False) as file:
        json.dump(heritage | {"descriptors": [*descriptors]}, file)
    return fd


def replace_program(fd: int, descriptors: Iterable[int]) -> NoReturn:
    """Runs the program anew in this process. Raises OSError if that cannot be, and then all is as before."""
    kept = [fd, *descriptors]
    # A signal that comes before there are handlers waits for them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_AT_START)
    try:
        for number in kept:
            os.set_inheritable(number, True)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [*program(), *arguments()], os.environ | {VARIABLE: str(fd)})  # noqa: S606
    except BaseException:
        for number in kept:
            os.set_inheritable(number, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise


def arguments() -> list[str]:
    """The subcommand and what followed it."""
    given = sys.orig_argv
    return given[given.index("serve") :] if "serve" in given else []


def unblock_signals() -> None:
    """Once there are handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_AT_START)
