"""What a server is asked once a transaction is over, and what its answers say."""

from __future__ import annotations

import pytest

from proxy.errors import ServerProtocolError
from proxy.model import PinReason
from proxy.protocol.inquiry import Inquiry
from proxy.protocol.pipeline import DROP, Pipeline
from proxy.wire import decode, encode
from tests.client.stage import frames, inquired


def answered(inquiry: Inquiry, answer: bytes, *, whole: bool = True) -> Inquiry:
    pipeline = Pipeline()
    inquiry.messages(pipeline)
    for kind, body in frames(answer):
        head = pipeline.head()
        assert head is not None
        assert pipeline.reply(ord(kind)) == DROP
        if kind == "D":
            assert head.learn is not None
            head.learn(ord(kind), body, whole)
    assert not pipeline
    return inquiry


def test_names_are_bound_and_never_part_of_the_text() -> None:
    hostile = "x'); DROP TABLE t; --"
    asked = frames(Inquiry([hostile, "work_mem"], [hostile], []).messages(Pipeline()))
    texts = [decode.parse(body).text for kind, body in asked if kind == "P"]
    assert len(texts) == 2
    assert not any(b"DROP" in text for text in texts)
    assert sum(hostile.encode() in body for kind, body in asked if kind == "B") == 2
    assert [kind for kind, _ in asked].count("S") == 1


def test_it_learns_values_sources_and_what_is_left() -> None:
    inquiry = Inquiry(
        ["app.x", "no.such", "work_mem"], ["work_mem"], [PinReason.LISTEN, PinReason.HOLD_CURSOR]
    )
    answered(inquiry, inquired("", None, "5MB", in_session="work_mem", left="tf"))
    assert inquiry.values == {"app.x": "", "no.such": None, "work_mem": "5MB"}
    assert inquiry.in_session == {"work_mem"}
    assert inquiry.gone == {PinReason.HOLD_CURSOR}
    assert not inquiry.too_long


def test_no_row_of_sources_is_an_answer_too() -> None:
    inquiry = answered(Inquiry(["a"], ["a"], []), inquired("1", in_session=""))
    assert inquiry.in_session == set()


def test_what_is_too_long_is_not_learned() -> None:
    inquiry = answered(Inquiry(["a"], [], []), inquired("1"), whole=False)
    assert inquiry.too_long
    assert inquiry.values == {}


def test_another_answer_is_not_believed() -> None:
    with pytest.raises(ServerProtocolError):
        answered(Inquiry(["a", "b"], [], []), inquired("1"))


def test_it_leaves_no_statement() -> None:
    asked = frames(Inquiry(["a"], ["a"], [PinReason.LISTEN]).messages(Pipeline()))
    assert [kind for kind, _ in asked] == [*"PBEC" * 3, "S"]
    assert {body for kind, body in asked if kind == "C"} == {
        b"S" + encode.close(b"S", b"tiergate_inquiry")[6:]
    }
