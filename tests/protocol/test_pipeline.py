"""The queue of owed replies: matched in order, skipped to the Sync on errors, equal to a naive reference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ServerProtocolError
from proxy.protocol import pipeline as owed
from proxy.protocol.pipeline import DROP, FORWARD, INJECT, Expect, Pipeline
from proxy.protocol.statements import Statement
from proxy.sql.verdict import PLAIN

REPLIES = {owed.PARSE: "1", owed.BIND: "2", owed.DESCRIBE: "T", owed.EXECUTE: "C", owed.CLOSE: "3"}


def test_forward_drop_and_inject_come_in_the_order_of_the_requests() -> None:
    pipeline = Pipeline()
    pipeline.expect(owed.DROP_PARSE)
    pipeline.expect(owed.FORWARD_BIND)
    pipeline.expect(Expect(owed.CLOSE, INJECT, says=b"closed"))
    pipeline.expect(owed.FORWARD_SYNC)
    assert pipeline.reply(ord("1")) == DROP
    assert not pipeline.said
    assert pipeline.reply(ord("2")) == FORWARD
    assert pipeline.said == [b"closed"]
    assert pipeline.reply(ord("Z")) == FORWARD
    assert not pipeline


def test_inject_into_an_empty_queue_is_said_at_once() -> None:
    pipeline = Pipeline()
    pipeline.expect(Expect(owed.PARSE, INJECT, says=b"parsed"))
    assert pipeline.said == [b"parsed"]
    assert not pipeline


def test_requests_that_run_far_ahead_keep_their_order() -> None:
    pipeline = Pipeline()
    reference: list[Expect] = []
    for ahead, answered in ((300, 100), (5, 180), (200, 20), (0, 205), (3, 3)):
        for _ in range(ahead):
            reference.append(Expect(owed.QUERY))
            pipeline.expect(reference[-1])
        for _ in range(answered):
            assert pipeline.head() is reference.pop(0)
            assert pipeline.reply(ord("Z")) == FORWARD
        assert pipeline.entries == reference
        assert pipeline.asked - pipeline.answered == len(reference)
    assert pipeline.head() is None


def test_an_error_skips_to_the_sync_and_takes_back_newest_first() -> None:
    pipeline = Pipeline()
    undone: list[tuple[str, bool]] = []
    pipeline.expect(Expect(owed.PARSE, undo=lambda failed: undone.append(("a", failed))))
    pipeline.expect(
        Expect(owed.PARSE, INJECT, says=b"never", undo=lambda failed: undone.append(("b", failed)))
    )
    pipeline.expect(Expect(owed.CLOSE, undo=lambda failed: undone.append(("c", failed))))
    pipeline.expect(owed.FORWARD_SYNC)
    pipeline.expect(owed.FORWARD_QUERY)
    assert pipeline.reply(ord("E")) == FORWARD
    assert undone == [("c", False), ("b", False), ("a", True)]
    assert pipeline.reply(ord("Z")) == FORWARD
    assert [e.kind for e in pipeline.entries] == [owed.QUERY]
    assert not pipeline.said


def test_after_an_error_without_sync_later_requests_are_ignored_until_it_comes() -> None:
    pipeline = Pipeline()
    undone: list[bool] = []
    pipeline.expect(owed.FORWARD_BIND)
    pipeline.reply(ord("E"))
    assert pipeline, "the Sync is still owed"
    pipeline.expect(Expect(owed.PARSE, undo=undone.append))
    pipeline.expect(owed.FORWARD_QUERY)
    assert undone == [False]
    pipeline.expect(owed.FORWARD_SYNC)
    assert pipeline.reply(ord("Z")) == FORWARD
    assert not pipeline


def test_rows_and_tags_of_a_simple_query_belong_to_it() -> None:
    pipeline = Pipeline()
    pipeline.expect(owed.FORWARD_QUERY)
    for kind in b"TDCTDDCIEZ":
        assert pipeline.reply(kind) == FORWARD
    assert not pipeline


def test_an_error_of_a_statement_we_prepared_again_is_the_clients() -> None:
    pipeline = Pipeline()
    statement = Statement(b"s", b"SELECT 1", b"\0\0", PLAIN)
    pipeline.expect(Expect(owed.PARSE, DROP, statement=statement))
    pipeline.expect(owed.FORWARD_BIND)
    pipeline.expect(owed.FORWARD_SYNC)
    assert pipeline.reply(ord("E")) == FORWARD


def test_an_error_of_our_own_settings_is_dropped() -> None:
    pipeline = Pipeline()
    pipeline.expect(owed.DROP_PARSE)
    pipeline.expect(owed.DROP_BIND)
    pipeline.expect(owed.DROP_EXECUTE)
    pipeline.expect(owed.DROP_SYNC)
    pipeline.reply(ord("1"))
    assert pipeline.reply(ord("E")) == DROP
    assert pipeline.reply(ord("Z")) == DROP


@pytest.mark.parametrize("entry", [owed.FORWARD_EXECUTE, owed.FORWARD_QUERY])
def test_copy_in_forgets_the_syncs_that_the_server_ignores(entry: Expect) -> None:
    pipeline = Pipeline()
    pipeline.expect(entry)
    pipeline.expect(owed.FORWARD_SYNC)
    pipeline.reply(ord("G"))
    pipeline.copy_in_began()
    assert [e.kind for e in pipeline.entries] == [entry.kind]
    pipeline.expect(owed.FORWARD_SYNC)
    pipeline.reply(ord("C"))
    pipeline.reply(ord("Z"))
    if entry.kind == owed.QUERY:
        pipeline.reply(ord("Z"))
    assert not pipeline


def test_a_sync_behind_the_copys_end_counts_though_it_was_sent_before_the_copy_began() -> None:
    pipeline = Pipeline()
    for entry in (owed.FORWARD_EXECUTE, owed.FORWARD_SYNC, owed.COPY_ENDS, owed.FORWARD_SYNC):
        pipeline.expect(entry)
    pipeline.reply(ord("G"))
    pipeline.copy_in_began()
    pipeline.reply(ord("C"))
    assert [e.kind for e in pipeline.entries] == [owed.SYNC]
    pipeline.reply(ord("Z"))
    assert not pipeline


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (owed.FORWARD_PARSE, "2"),
        (owed.FORWARD_SYNC, "C"),
        (owed.FORWARD_BIND, "Z"),
        (owed.FORWARD_EXECUTE, "1"),
    ],
)
def test_a_reply_that_cannot_belong_to_the_head(entry: Expect, kind: str) -> None:
    pipeline = Pipeline()
    pipeline.expect(entry)
    with pytest.raises(ServerProtocolError):
        pipeline.reply(ord(kind))


def test_a_reply_that_nobody_asked_for() -> None:
    with pytest.raises(ServerProtocolError):
        Pipeline().reply(ord("C"))


@pytest.mark.parametrize("kind", "NAS")
def test_notices_notifications_and_parameters_come_any_time(kind: str) -> None:
    pipeline = Pipeline()
    assert pipeline.reply(ord(kind)) == FORWARD
    pipeline.expect(owed.DROP_PARSE)
    assert pipeline.reply(ord(kind)) == (FORWARD if kind == "A" else DROP), "nobody's request causes an A"
    assert len(pipeline.entries) == 1


steps = st.lists(
    st.tuples(
        st.sampled_from([owed.PARSE, owed.BIND, owed.DESCRIBE, owed.EXECUTE, owed.CLOSE, owed.SYNC]),
        st.sampled_from([FORWARD, DROP, INJECT]),
        st.booleans(),  # whether the server fails it
    ),
    max_size=20,
)


def reference(script: list[tuple[int, int, bool]]) -> tuple[list[tuple[str, int]], list[str]]:
    """What a server answers (type, to which step), and what the client then reads."""
    answers: list[tuple[str, int]] = []
    client: list[str] = []
    failed = False
    for number, (kind, action, fails) in enumerate(script):
        if kind == owed.SYNC:
            failed = False
            answers.append(("Z", number))
            if action != DROP:
                client.append(f"Z{number}")
        elif failed:
            continue
        elif action == INJECT:
            client.append(f"I{number}")
        elif fails:
            failed = True
            answers.append(("E", number))
            if action != DROP:
                client.append(f"E{number}")
        else:
            answers.append((REPLIES[kind], number))
            if action == FORWARD:
                client.append(f"{REPLIES[kind]}{number}")
    return answers, client


@given(steps)
def test_equals_the_naive_reference(script: list[tuple[int, int, bool]]) -> None:
    script = [(k, FORWARD if k == owed.SYNC and a == INJECT else a, f) for k, a, f in script]
    script.append((owed.SYNC, FORWARD, False))
    answers, expected = reference(script)
    pipeline = Pipeline()
    for number, (kind, action, _) in enumerate(script):
        pipeline.expect(Expect(kind, action, says=b"I%d" % number))
    read = [said.decode() for said in pipeline.said]
    pipeline.said.clear()
    for answer, number in answers:
        if pipeline.reply(ord(answer)) == FORWARD:
            read.append(f"{answer}{number}")
        read.extend(said.decode() for said in pipeline.said)
        pipeline.said.clear()
    assert read == expected
    assert not pipeline
