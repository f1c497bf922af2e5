"""Asks the kernel to let this process have a core soon after it is woken.

A worker runs for some tens of microseconds at a time, and whoever it forwards for waits until it does. The kernel's
scheduler (EEVDF, Linux 6.12 and later) gives a core first to who has asked for the shortest turns: it comes sooner then, for
as much of it in all as before. That takes no privilege. Where there is no such scheduler, or the operator has chosen another
policy for the process, everything stays as it is; so do programs that it starts.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable

SHORT = 300_000  # nanoseconds; the kernel's own are a few milliseconds
_CALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}  # sched_setattr, sched_getattr
_ORDINARY = 0  # SCHED_OTHER
_NOT_OF_CHILDREN = 1  # SCHED_FLAG_RESET_ON_FORK


class _Attributes(ctypes.Structure):
    """`struct sched_attr` as it first was."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def shorten(nanoseconds: int = SHORT) -> bool:
    """Of the calling thread, which is to be the one that serves. Whether the kernel has taken it."""
    calls = _CALLS.get(platform.machine())
    if sys.platform != "linux" or calls is None:
        return False
    attributes = _read(calls[1])
    if attributes is None or attributes.policy != _ORDINARY:
        return False
    attributes.flags |= _NOT_OF_CHILDREN
    attributes.runtime = nanoseconds
    if _system_call()(calls[0], 0, ctypes.byref(attributes), 0):
        return False
    return length() == nanoseconds


def length(thread: int = 0) -> int:
    """Of a turn of that thread, 0 for the calling one, in nanoseconds; 0 where that is not known."""
    calls = _CALLS.get(platform.machine())
    attributes = _read(calls[1], thread) if sys.platform == "linux" and calls is not None else None
    return attributes.runtime if attributes is not None else 0


def _system_call() -> Callable[..., int]:
    call: Callable[..., int] = ctypes.CDLL(None).syscall
    return call


def _read(call: int, thread: int = 0) -> _Attributes | None:
    attributes = _Attributes()
    size = ctypes.sizeof(attributes)
    return attributes if not _system_call()(call, thread, ctypes.byref(attributes), size, 0) else None
