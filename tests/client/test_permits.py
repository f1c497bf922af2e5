from __future__ import annotations

import asyncio

import pytest

from proxy.admission.accounts import Counter, Hope
from proxy.client import permits
from proxy.client.permits import take
from tests.server.fakes import run


class Lender:
    """Keeps those who hope, for the test to answer."""

    def __init__(self) -> None:
        self.hopes: list[tuple[Counter, Hope]] = []

    def touch(self, counter: Counter) -> None:
        """Nothing to say."""

    def repay(self, counter: Counter) -> None:
        raise AssertionError("nothing is owed")

    def limited(self, counter: Counter, before: int) -> None:
        counter.allowance = 0

    def hope(self, counter: Counter, hope: Hope) -> None:
        self.hopes.append((counter, hope))

    def grant(self) -> bool:
        counter, hope = self.hopes.pop(0)
        counter.allowance += 1
        counter.used += 1
        if not hope.granted():
            counter.used -= 1
            return False
        return True

    async def asked(self, count: int = 1) -> None:
        while len(self.hopes) < count:
            await asyncio.sleep(0)


def test_a_process_that_is_alone_answers_at_once() -> None:
    async def main() -> None:
        one, two = Counter("one", 1), Counter("two", 1)
        assert await take((one, two)) is None
        assert await take((one, two)) is one
        assert (one.used, two.used) == (1, 1)

    run(main())


def test_each_is_asked_for_in_turn() -> None:
    async def main() -> None:
        lender = Lender()
        one, two = Counter("one", 5, lender=lender), Counter("two", 5, lender=lender)
        taking = asyncio.ensure_future(take((one, two)))
        await lender.asked()
        assert lender.hopes[0][0] is one
        assert lender.grant()
        await lender.asked()
        assert (one.used, two.used) == (1, 0)
        assert lender.grant()
        assert await taking is None
        assert (one.used, two.used) == (1, 1)

    run(main())


def test_a_refusal_gives_back_what_was_taken_before() -> None:
    async def main() -> None:
        lender = Lender()
        one, two = Counter("one", 5), Counter("two", 5, lender=lender)
        taking = asyncio.ensure_future(take((one, two)))
        await lender.asked()
        lender.hopes.pop()[1].refused()
        assert await taking is two
        assert (one.used, two.used) == (0, 0)

    run(main())


def test_no_answer_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permits, "_PATIENCE", 0.02)

    async def main() -> None:
        lender = Lender()
        counter = Counter("c", 5, lender=lender)
        assert await take((counter,)) is counter
        assert not lender.grant(), "it has come too late"
        assert counter.used == 0

    run(main())


@pytest.mark.parametrize("answered", [False, True])
def test_one_that_leaves_has_nothing(answered: bool) -> None:
    async def main() -> None:
        lender = Lender()
        one, two = Counter("one", 5), Counter("two", 5, lender=lender)
        taking = asyncio.ensure_future(take((one, two)))
        await lender.asked()
        if answered:
            assert lender.grant()
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        if not answered:
            assert not lender.grant()
        assert (one.used, two.used) == (0, 0)

    run(main())
