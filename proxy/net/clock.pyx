# cython: language_level=3
"""The twin of `clock.py`: the same clock."""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef bint _standing = False
cdef double _now = 0.0


cpdef double monotonic() noexcept:
    cdef timespec now
    if _standing:
        return _now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


def stand(now):
    global _standing, _now
    _standing = now is not None
    if _standing:
        _now = now
