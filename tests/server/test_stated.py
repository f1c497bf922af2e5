"""What has been set on one server connection, and what is sent for more."""

from __future__ import annotations

import pytest

from proxy.protocol import pipeline as owed
from proxy.protocol.state import EMPTY, UNKNOWN, intern
from proxy.server.sealing import NEVER
from proxy.server.stated import Stated
from proxy.wire import encode

ACME, BETA = intern({"app.tenant_id": "acme"}), intern({"app.tenant_id": "beta"})
GUC = "app.tenant_id"


@pytest.fixture
def stated() -> Stated:
    return Stated({"DateStyle": "ISO, MDY", "TimeZone": "UTC"})


def kinds(stated: Stated) -> list[int]:
    return [entry.kind for entry in stated.pipeline.entries]


def answered(stated: Stated, replies: str) -> None:
    for reply in replies:
        stated.pipeline.reply(ord(reply))


def test_it_begins_with_what_the_server_has_reported(stated: Stated) -> None:
    assert stated.reported.parameters == {"datestyle": "ISO, MDY", "timezone": "UTC"}
    assert stated.values is EMPTY
    assert stated.seal_due == NEVER


def test_what_is_there_is_not_set_again(stated: Stated) -> None:
    assert stated.apply(EMPTY) == b""
    assert stated.apply(intern({"timezone": "UTC"})) == b"", "as it began"
    assert stated.apply(ACME)
    assert stated.values is ACME
    assert stated.apply(ACME) == b""
    assert stated.apply_assured(ACME) == b""
    assert kinds(stated)[-1] == owed.SYNC, "one change and no more"


def test_a_change_is_a_batch_of_its_own(stated: Stated) -> None:
    sent = stated.apply(ACME)
    assert sent.endswith(encode.SYNC)
    assert kinds(stated) == [owed.PARSE, owed.BIND, owed.EXECUTE, owed.CLOSE, owed.SYNC]
    assert stated.pipeline.settling
    answered(stated, "12DC3Z")
    assert not stated.pipeline.owes()


def test_what_must_not_run_without_it_stands_behind_its_mark(stated: Stated) -> None:
    sent = stated.apply_assured(ACME)
    change, _, look = sent.partition(encode.SYNC)
    assert change.endswith(b"\0\0\0\0"), "an empty statement"
    name = change[change.rindex(b"tiergate_sure_") : -4]
    assert look == encode.describe(b"S", name) + encode.close(b"S", name)
    assert kinds(stated)[-4:] == [owed.PARSE, owed.SYNC, owed.DESCRIBE, owed.CLOSE]
    assert all(entry.crucial for entry in stated.pipeline.entries[-2:])
    answered(stated, "12DC31Ztn3")
    assert not stated.pipeline.owes()


def test_what_enters_a_transaction_lasts_if_that_commits(stated: Stated) -> None:
    stated.apply(ACME)
    answered(stated, "12DC3Z")
    assert stated.can_enter(BETA, GUC)
    assert not stated.can_enter(ACME, GUC), "nothing is to change"
    assert not stated.can_enter(intern({GUC: "beta", "work_mem": "1MB"}), GUC), "more than that"
    assert not stated.can_enter(intern({GUC: "bê"}), GUC), "no word for a text"
    sent = stated.enter(BETA, GUC, alone=True)
    assert b'SET "app"."tenant_id" TO \'beta\'' in sent
    assert encode.SYNC not in sent
    stated.settle(open=False, undone=False)
    assert stated.values is BETA
    assert stated.entered == ""


@pytest.mark.parametrize(
    ("has", "needs", "can"),
    [
        ({GUC: "acme", "timezone": "CET"}, {GUC: "beta", "timezone": "CET"}, True),
        ({GUC: "acme", "timezone": "UTC"}, {GUC: "beta"}, True),
        ({GUC: UNKNOWN}, {GUC: "beta"}, True),
        ({GUC: "acme"}, {GUC: ""}, True),
        ({GUC: "acme", "timezone": "CET"}, {GUC: "beta"}, False),
        ({GUC: "acme", "role": "x"}, {GUC: "acme"}, False),
        ({GUC: "acme", "role": "x"}, {GUC: "beta", "role": "x"}, False),
        ({GUC: "acme", "statement_timeout": "5"}, {GUC: "beta", "statement_timeout": "5"}, False),
        ({}, {GUC: "beta"}, False),
        ({GUC: "acme"}, {}, False),
    ],
)
def test_whom_it_speaks_for_may_enter_alone(
    stated: Stated, has: dict[str, str], needs: dict[str, str], can: bool
) -> None:
    stated.apply(intern(has))
    for _ in range(2):
        assert stated.can_enter(intern(needs), GUC) is can


@pytest.mark.parametrize(("alone", "undone"), [(True, True), (False, True), (False, False)])
def test_if_it_does_not_nobody_knows_whom_it_speaks_for(stated: Stated, alone: bool, undone: bool) -> None:
    """That a block has been committed must have been heard."""
    stated.apply(ACME)
    stated.enter(BETA, GUC, alone=alone)
    stated.settle(open=False, undone=undone)
    assert stated.values.parameters[GUC] == UNKNOWN
    assert stated.apply(BETA)


def test_a_batch_that_has_opened_a_block_is_a_block(stated: Stated) -> None:
    stated.apply(ACME)
    stated.enter(BETA, GUC, alone=True)
    stated.settle(open=True, undone=False)
    assert stated.entered == GUC
    assert not stated.alone


def test_what_is_set_again_is_told_by_its_place(stated: Stated) -> None:
    within = stated.set_again({"timezone": "UTC"}, within=True)
    assert not within.endswith(encode.SYNC)
    assert not any(entry.tolerant for entry in stated.pipeline.entries), "its error is the client's"
    assert stated.set_again({"timezone": "UTC"}).endswith(encode.SYNC)
    assert stated.pipeline.entries[-1].tolerant
