"""The permits of one more client, which in a process that is one of several may have to be asked for."""

from __future__ import annotations

import asyncio

from proxy.admission.accounts import Counter, give_all, take_all

_PATIENCE = 10.0  # seconds; beyond, whoever should answer has other troubles


class _Asking:
    """One permit on its way; it is held once `answer` is True."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def granted(self) -> bool:
        if self.answer.done():
            return False
        self.answer.set_result(True)
        return True

    def refused(self) -> None:
        if not self.answer.done():
            self.answer.set_result(False)


async def take(counters: tuple[Counter, ...]) -> Counter | None:
    """Takes one permit of each; if there is none of one, takes none and returns it.

    Those that others may have are asked for one after the other, always in this order, while those before are
    held: asked for all at once, two logins could each end up with what the other lacks.
    """
    full = take_all(counters)
    if full is None or full.lender is None:
        return full
    taken: list[Counter] = []
    try:
        for counter in counters:
            if not await _take_one(counter):
                give_all(tuple(taken))
                return counter
            taken.append(counter)
    except BaseException:
        give_all(tuple(taken))
        raise
    return None


async def _take_one(counter: Counter) -> bool:
    if not counter.full:
        counter.take()
        return True
    if counter.lender is None:
        return False
    asking = _Asking()
    counter.lender.hope(counter, asking)
    try:
        await asyncio.wait([asking.answer], timeout=_PATIENCE)
    except asyncio.CancelledError:
        if asking.answer.done() and asking.answer.result():
            counter.give()  # the answer came before its asker's turn to leave
        asking.refused()
        raise
    asking.refused()  # unless it has been answered
    return asking.answer.result()
