"""One server connection by its bytes: what its replies mean, who hears them, and what is swallowed."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ServerProtocolError
from proxy.protocol import pipeline as owed
from proxy.protocol.lifecycle import ServerState
from proxy.protocol.pipeline import DROP, INJECT, Expect
from proxy.protocol.state import EMPTY, intern
from proxy.protocol.statements import Catalog
from proxy.server.connection import FAILED, IDLE, IN_TRANSACTION, ServerConnection
from proxy.sql.verdict import PLAIN
from proxy.wire import encode
from tests.server.recording import Link, Owner, account, connection
from tests.transports import Transport

READY = encode.ready_for_query()
ROW = encode.data_row(["value"])
SELECTED = encode.command_complete("SELECT 1")
ERROR = encode.error("no", "22012")
PARSED, BOUND, CLOSED = encode.PARSE_COMPLETE, encode.BIND_COMPLETE, encode.CLOSE_COMPLETE
TAKEN = PARSED + BOUND + ROW + SELECTED + CLOSED + READY
COPY_IN = encode.frame(b"G", b"\0\0\0")
LISTENED = encode.frame(b"A", b"\0\0\0\1x\0\0")


@pytest.fixture
def link() -> Link:
    return Link()


def status(name: str, value: str) -> bytes:
    return encode.parameter_status(name.encode(), value.encode())


# --- replies pass -----------------------------------------------------------------------------------


def test_the_chunk_of_a_reply_is_handed_on_as_it_came_and_then_it_is_ready(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_QUERY)
    wire.say(ROW, SELECTED, READY)
    assert link.take() == [ROW + SELECTED + READY, "ready"]


def test_rows_pass_before_they_are_whole(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_QUERY)
    wire.say(ROW[:8])
    assert link.take() == [ROW[:8]]
    wire.say(ROW[8:])
    assert link.take() == [ROW[8:]]


def test_it_is_ready_when_the_last_reply_has_come_and_not_before(link: Link) -> None:
    server, wire = connection(link=link)
    for _ in range(2):
        server.expect(owed.FORWARD_QUERY)
    wire.say(SELECTED, READY)
    assert link.take() == [SELECTED + READY]
    wire.say(SELECTED, READY[:5])
    assert "ready" not in link.take()
    wire.say(READY[5:])
    assert link.take()[-1] == "ready"


answers = st.lists(st.sampled_from([ROW, SELECTED, READY, ERROR, encode.notice("hm"), LISTENED]), max_size=12)


@given(answers, st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_replies_are_the_same_however_they_are_cut(replies: list[bytes], cuts: list[int]) -> None:
    link = Link()
    server, wire = connection(link=link)
    for _ in range(replies.count(READY) + 1):
        server.expect(owed.FORWARD_QUERY)
    data = b"".join(replies)
    for piece in pieces(data, cuts):
        wire.say(piece)
    assert b"".join(event for event in link.take() if isinstance(event, bytes)) == data


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        for size in cuts:
            if at < len(data):
                yield data[at : at + size]
            at += size


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_what_was_asked_by_us_is_dropped_however_it_is_cut(cuts: list[int]) -> None:
    link = Link()
    server, wire = connection(link=link)
    server.apply(intern({"app.tenant_id": "acme"}))
    server.expect(owed.FORWARD_QUERY)
    server.send(b"")
    for piece in pieces(TAKEN + ROW + SELECTED + READY, cuts):
        wire.say(piece)
    events = link.take()
    assert events[0] == ("state", b"")
    assert b"".join(event for event in events if isinstance(event, bytes)) == ROW + SELECTED + READY
    assert events[-1] == "ready"


def test_the_connection_of_nobody_swallows_what_comes() -> None:
    owner = Owner()
    server, wire = connection(owner)
    wire.say(encode.notice("hm"), status("TimeZone", "CET"), LISTENED)
    assert server.reported.parameters["timezone"] == "CET"
    assert owner.stats.bytes_sent > 0
    assert not wire.closed


# --- the transaction's status -----------------------------------------------------------------------


@pytest.mark.parametrize(("said", "known"), [(b"I", IDLE), (b"T", IN_TRANSACTION), (b"E", FAILED)])
def test_the_status_is_the_last_one_told(link: Link, said: bytes, known: int) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_QUERY)
    wire.say(SELECTED, encode.ready_for_query(said))
    assert server.status == known


def test_queries_and_transactions_are_counted_for_the_tenant_and_the_pool(
    link: Link,
) -> None:
    owner = Owner()
    server, wire = connection(owner, link)
    server.account = tenant = account()
    began = monotonic()
    for seconds, told in ((1000.0, b"T"), (2000.0, b"I")):
        server.begin(monotonic() - seconds)
        server.expect(owed.FORWARD_QUERY)
        wire.say(SELECTED, encode.ready_for_query(told))
    assert (tenant.stats.queries, tenant.stats.transactions) == (2, 1)
    assert 3000.0 - tenant.stats.durations.total == pytest.approx(0.0, abs=monotonic() - began + 0.001)
    assert (owner.stats.queries, owner.stats.transactions) == (2, 1)


def test_our_own_requests_are_not_counted(link: Link) -> None:
    owner = Owner()
    server, wire = connection(owner, link)
    server.account = tenant = account()
    server.send(server.apply(intern({"app.tenant_id": "acme"})))
    wire.say(TAKEN)
    assert tenant.stats.queries == 0
    assert owner.stats.queries == 0


def test_an_error_is_counted_by_its_sqlstate(link: Link) -> None:
    server, wire = connection(link=link)
    server.account = tenant = account()
    server.expect(owed.FORWARD_QUERY)
    wire.say(ERROR, READY)
    assert tenant.stats.errors == {"22012": 1}


def test_an_error_that_is_said_in_place_of_the_servers_is_the_one_that_counts(link: Link) -> None:
    server, wire = connection(link=link)
    server.account = tenant = account()
    server.expect(Expect(owed.QUERY, error=encode.error("refused", "0A000")))
    wire.say(ERROR, READY)
    assert tenant.stats.errors == {"0A000": 1}


# --- state ------------------------------------------------------------------------------------------


def test_a_state_is_applied_with_bound_values_and_told_when_it_is_in_force(link: Link) -> None:
    server, wire = connection(link=link)
    needs = intern({"app.tenant_id": "it's"})
    server.send(server.apply(needs))
    asked = wire.take()
    assert b"it's" in asked
    assert b"'it" not in asked
    assert asked.endswith(encode.close(b"S", b"tiergate_state") + encode.SYNC)
    wire.say(TAKEN)
    assert link.take() == [("state", b""), "ready"]
    assert server.values is needs
    assert server.apply(needs) == b""


def test_a_state_that_the_login_gave_already_needs_no_message() -> None:
    server, _ = connection()
    assert server.apply(intern({"timezone": "UTC"})) == b""
    assert not server.pipeline


def test_a_state_that_is_refused_is_told_with_the_servers_error(link: Link) -> None:
    server, wire = connection(link=link)
    server.send(server.apply(intern({"timezone": "Nowhere"})))
    wire.say(ERROR, READY)
    assert link.take() == [("state", ERROR), "ready"]


def test_the_clients_replies_behind_a_change_come_behind_its_end(link: Link) -> None:
    server, wire = connection(link=link)
    out = server.apply(intern({"timezone": "CET"}))
    server.expect(owed.FORWARD_QUERY)
    server.send(out + encode.query(b"SELECT 1"))
    wire.say(TAKEN[:-6] + status("TimeZone", "CET") + READY, ROW, SELECTED, READY)
    assert link.take() == [("state", b""), ROW + SELECTED + READY, "ready"]
    assert server.reported.parameters["timezone"] == "CET"


def test_a_parameter_that_the_client_changed_is_news_to_its_session(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_QUERY)
    said = encode.command_complete("SET") + status("TimeZone", "CET") + READY
    wire.say(said)
    assert link.take() == [("timezone", "CET"), said, "ready"]


def test_a_reset_is_told_as_what_it_is_set_to_again(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(Expect(owed.QUERY, restores={"timezone": "Asia/Tokyo"}))
    server.send(encode.query(b"RESET ALL") + server.set_again({"timezone": "Asia/Tokyo"}))
    wire.say(encode.command_complete("RESET"), status("TimeZone", "UTC"), READY)
    assert link.take() == [
        ("timezone", "Asia/Tokyo"),
        encode.command_complete("RESET") + status("TimeZone", "Asia/Tokyo") + READY,
    ]
    wire.say(CLOSED, TAKEN[:-6], CLOSED, status("TimeZone", "Asia/Tokyo"), READY)
    assert link.take() == ["ready"]


def test_a_reset_to_what_the_session_has_is_no_news(link: Link) -> None:
    server, wire = connection(link=link)
    link.news = False
    server.expect(Expect(owed.QUERY, restores={"timezone": "Asia/Tokyo"}))
    wire.say(status("TimeZone", "UTC"), encode.command_complete("RESET"), READY)
    assert b"TimeZone" not in b"".join(event for event in link.take() if isinstance(event, bytes))


def test_a_tolerated_failure_outside_a_failed_transaction_makes_it_dirty(link: Link) -> None:
    server, wire = connection(link=link)
    server.send(server.set_again({"timezone": "CET"}))
    wire.say(ERROR, READY)
    assert server.dirty
    assert link.take() == ["ready"], "nobody's state has failed"


def test_within_a_failed_transaction_it_does_not(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_QUERY)
    server.send(server.set_again({"timezone": "CET"}))
    wire.say(ERROR, encode.ready_for_query(b"E"), ERROR, encode.ready_for_query(b"E"))
    assert not server.dirty


# --- statements -------------------------------------------------------------------------------------


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


def answered(server: ServerConnection, wire: Transport) -> None:
    """A Sync follows and every request before it succeeds."""
    kinds = {owed.PARSE: PARSED, owed.BIND: BOUND, owed.EXECUTE: SELECTED, owed.CLOSE: CLOSED}
    said = b"".join(kinds[entry.kind] for entry in server.pipeline.entries)
    server.expect(owed.FORWARD_SYNC)
    wire.say(said, READY)


def test_a_statement_is_prepared_once(catalog: Catalog, link: Link) -> None:
    server, wire = connection(link=link)
    statement = catalog.statement(b"SELECT 1", b"\0\0", PLAIN)
    assert server.prepare(statement) == encode.parse(statement.name, b"SELECT 1")
    answered(server, wire)
    assert server.prepare(statement) == b""
    assert link.take() == [READY, "ready"], "the ParseComplete was not the client's"


def test_the_least_recently_used_is_closed_for_a_new_one(catalog: Catalog) -> None:
    server, wire = connection(link=Link(), max_prepared=2)
    a, b, c = (catalog.statement(text, b"\0\0", PLAIN) for text in (b"A", b"B", b"C"))
    for statement in (a, b, a):
        server.prepare(statement)
        answered(server, wire)
    assert server.prepare(c) == encode.close(b"S", b.name) + encode.parse(c.name, b"C")


def test_a_prepare_that_fails_is_the_clients_error_and_is_tried_again(catalog: Catalog, link: Link) -> None:
    server, wire = connection(link=link)
    statement = catalog.statement(b"SELEC 1", b"\0\0", PLAIN)
    server.prepare(statement)
    server.expect(owed.FORWARD_BIND)
    server.expect(owed.FORWARD_SYNC)
    wire.say(ERROR, READY)
    assert link.take() == [ERROR + READY, "ready"]
    assert server.prepare(statement) != b""


def test_one_whose_closing_was_skipped_after_an_error_is_closed_before_it_is_prepared_again(
    catalog: Catalog, link: Link
) -> None:
    server, wire = connection(link=link, max_prepared=1)
    a, b = (catalog.statement(text, b"\0\0", PLAIN) for text in (b"A", b"B"))
    server.prepare(a)
    answered(server, wire)
    server.expect(owed.FORWARD_BIND)  # which fails
    assert encode.close(b"S", a.name) in server.prepare(b)
    server.expect(owed.FORWARD_SYNC)
    wire.say(ERROR, READY)
    again = server.prepare(a)
    assert again == encode.close(b"S", a.name) + encode.parse(a.name, b"A"), "the server still has it"


def test_an_outdated_plan_retires_the_statement(catalog: Catalog, link: Link) -> None:
    owner = Owner()
    server, wire = connection(owner, link)
    statement = catalog.statement(b"SELECT * FROM t", b"\0\0", PLAIN)
    server.prepare(statement)
    answered(server, wire)
    server.expect(Expect(owed.BIND, statement=statement))
    server.expect(owed.FORWARD_SYNC)
    wire.say(
        encode.frame(
            b"E",
            b"SERROR\0C0A000\0Mcached plan must not change result type\0RRevalidateCachedQuery\0\0",
        ),
        READY,
    )
    assert owner.retired == [statement]
    assert server.prepare(statement).startswith(encode.close(b"S", statement.name))


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("ALTER TABLE", 1),
        ("CREATE VIEW", 1),
        ("DROP TABLE", 1),
        ("COMMIT", 0),
        ("COPY 1", 0),
        ("ANALYZE", 0),
        ("DO", 0),
    ],
)
def test_a_change_of_the_schema_is_noted(link: Link, tag: str, version: int) -> None:
    owner = Owner()
    server, wire = connection(owner, link)
    server.expect(owed.FORWARD_QUERY)
    wire.say(encode.command_complete(tag), READY)
    assert owner.schema.version == version


def test_our_name_of_a_statement_is_replaced_in_errors(catalog: Catalog, link: Link) -> None:
    server, wire = connection(link=link)
    link.renames = {b"tiergate_1": b"mine"}
    server.expect(owed.FORWARD_PARSE)
    server.expect(owed.FORWARD_SYNC)
    wire.say(encode.error('prepared statement "tiergate_1" already exists', "42P05"), READY)
    (said, _ready) = link.take()
    assert b'"mine" already' in said  # type: ignore[operator]


@pytest.mark.parametrize(
    ("tag", "heard"), [("DISCARD ALL", ("reset", True, True)), ("DEALLOCATE ALL", ("reset", False, False))]
)
def test_what_takes_all_statements_away_is_told(
    catalog: Catalog, link: Link, tag: str, heard: object
) -> None:
    server, wire = connection(link=link)
    statement = catalog.statement(b"SELECT 1", b"\0\0", PLAIN)
    server.prepare(statement)
    answered(server, wire)
    link.take()
    server.expect(owed.FORWARD_QUERY)
    wire.say(encode.command_complete(tag), READY)
    assert link.take()[0] == heard
    assert server.prepare(statement) != b""


def test_discard_all_alone_makes_a_dirty_connection_clean(link: Link) -> None:
    server, wire = connection(link=link)
    server.dirty = True
    server.expect(owed.FORWARD_QUERY)
    wire.say(encode.command_complete("DISCARD ALL"), READY)
    assert not server.dirty


@pytest.mark.parametrize(
    "behind", [(owed.FORWARD_QUERY,), (owed.FORWARD_BIND, owed.FORWARD_EXECUTE, owed.FORWARD_SYNC)]
)
def test_with_something_asked_behind_it_it_does_not(link: Link, behind: tuple[Expect, ...]) -> None:
    server, wire = connection(link=link)
    server.dirty = True
    server.expect(owed.FORWARD_QUERY)
    for entry in behind:
        server.expect(entry)
    wire.say(encode.command_complete("DISCARD ALL"), READY)
    assert server.dirty
    assert link.take()[0] == ("reset", True, False)


# --- injected replies -------------------------------------------------------------------------------


def test_an_injected_reply_is_said_in_its_place(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_BIND)
    server.expect(Expect(owed.CLOSE, INJECT, says=CLOSED))
    server.expect(owed.FORWARD_EXECUTE)
    server.expect(Expect(owed.PARSE, INJECT, says=PARSED))
    server.expect(owed.FORWARD_SYNC)
    wire.say(BOUND, ROW, SELECTED, READY)
    assert link.take() == [BOUND + CLOSED + ROW + SELECTED + PARSED + READY, "ready"]


ROW_TYPE = encode.frame(b"T", b"\0\1column\0" + bytes(18))


@pytest.mark.parametrize("cut", range(5, len(ROW_TYPE)))
def test_an_injected_reply_waits_for_the_end_of_a_frame_that_comes_in_part(link: Link, cut: int) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_DESCRIBE)
    server.expect(Expect(owed.CLOSE, INJECT, says=CLOSED))
    server.expect(owed.FORWARD_SYNC)
    wire.say(ROW_TYPE[:cut])
    wire.say(ROW_TYPE[cut:] + READY)
    assert b"".join(e for e in link.take() if isinstance(e, bytes)) == ROW_TYPE + CLOSED + READY


def test_an_injected_reply_behind_an_error_is_not_said(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_BIND)
    server.expect(Expect(owed.CLOSE, INJECT, says=CLOSED))
    server.expect(owed.FORWARD_SYNC)
    wire.say(ERROR, READY)
    assert link.take() == [ERROR + READY, "ready"]


def test_an_error_of_ours_takes_the_place_of_the_servers(link: Link) -> None:
    server, wire = connection(link=link)
    ours = encode.error("not allowed", "42501")
    server.expect(Expect(owed.QUERY, error=ours))
    wire.say(ERROR, READY)
    assert link.take() == [ours + READY, "ready"]


def test_a_query_that_was_cancelled_for_a_limit_says_which(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_QUERY)
    server.struck = "query_timeout"
    wire.say(encode.error("canceling statement due to user request", "57014"), READY)
    assert b"due to query_timeout" in link.take()[0]  # type: ignore[operator]
    server.expect(owed.FORWARD_QUERY)
    wire.say(encode.error("canceling statement due to user request", "57014"), READY)
    assert b"user request" in link.take()[0], "the next one was not"  # type: ignore[operator]


def test_after_an_error_within_a_batch_nothing_more_is_said_before_its_sync(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_PARSE)
    wire.say(ERROR)
    assert link.take() == [ERROR, "ready"]
    assert server.pipeline, "the batch is not over"
    server.expect(owed.FORWARD_BIND)
    server.expect(owed.FORWARD_SYNC)
    wire.say(READY)
    assert link.take() == [READY, "ready"]
    assert not server.pipeline


# --- copy -------------------------------------------------------------------------------------------


def test_a_copy_is_open_until_it_ends_or_fails(link: Link) -> None:
    server, wire = connection(link=link)
    for end in (encode.command_complete("COPY 1"), ERROR):
        server.expect(owed.FORWARD_QUERY)
        wire.say(COPY_IN)
        assert server.copy_in
        assert link.take() == ["copy", COPY_IN]
        wire.say(end)
        assert not server.copy_in
        wire.say(READY)
        link.take()


def test_a_copy_whose_end_was_sent_ahead_is_not_open(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_QUERY)
    server.expect(owed.COPY_ENDS)
    server.expect(owed.FORWARD_QUERY)
    wire.say(COPY_IN)
    assert not server.copy_in
    wire.say(encode.command_complete("COPY 1"), READY, SELECTED, READY)
    assert link.take()[-1] == "ready"


def test_copy_out_passes(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_QUERY)
    said = (
        encode.frame(b"H", b"\0\0\0")
        + encode.frame(b"d", b"row\n")
        + encode.frame(b"c", b"")
        + encode.command_complete("COPY 1")
        + READY
    )
    wire.say(said)
    assert link.take() == [said, "ready"]


# --- jobs of our own --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "succeeds"),
    [
        (encode.command_complete("DISCARD ALL") + READY, True),
        (ERROR + READY, False),
        (encode.command_complete("ROLLBACK") + encode.ready_for_query(b"T"), False),
    ],
)
def test_a_job_tells_whether_it_succeeded(said: bytes, succeeds: bool) -> None:
    server, wire = connection()
    results: list[bool] = []
    server.run("DISCARD ALL", results.append)
    assert wire.take() == encode.query(b"DISCARD ALL")
    wire.say(said[:9])
    assert results == []
    wire.say(said[9:])
    assert results == [succeeds]


def test_a_job_after_one_that_failed_begins_anew() -> None:
    server, wire = connection()
    results: list[bool] = []
    server.run("A", results.append)
    wire.say(ERROR, READY)
    server.run("B", results.append)
    wire.say(SELECTED, READY)
    assert results == [False, True]


def test_a_reset_connection_knows_nothing_of_before(catalog: Catalog) -> None:
    server, wire = connection()
    statement = catalog.statement(b"SELECT 1", b"\0\0", PLAIN)
    server.prepare(statement)
    answered(server, wire)
    server.values, server.unnamed, server.dirty = intern({"a.b": "c"}), statement, True
    server.was_reset()
    assert (server.values, server.unnamed, server.dirty) == (EMPTY, None, False)
    assert server.prepare(statement) != b""


# --- what is not the protocol -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"T\0\0\0\3",
        b"Z\xff\xff\xff\xff",
        b"R\0\0\0\x08\0\0\0\0",
        b"\0\0\0\0\0\0",
        PARSED,
        encode.ready_for_query(b"X"),
        READY + READY,
        READY + SELECTED,
    ],
)
def test_nonsense_ends_the_connection_and_is_told_once(link: Link, said: bytes) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_QUERY)
    wire.say(said)
    assert wire.aborted
    wire.say(ROW)
    wire.hang_up()
    lost = [event for event in link.take() if isinstance(event, tuple)]
    assert lost == [("lost", ServerProtocolError.sqlstate, b"")]


def test_what_nobody_asked_for_on_an_idle_connection_ends_it() -> None:
    owner = Owner()
    server, wire = connection(owner)
    wire.say(SELECTED)
    assert wire.aborted
    wire.hang_up()
    assert owner.lost_ones == [server]


# --- the end ----------------------------------------------------------------------------------------


def test_a_server_that_hangs_up_is_told_to_the_pool_first_and_then_to_the_session(link: Link) -> None:
    owner = Owner()
    server, wire = connection(owner, link)
    wire.hang_up()
    assert owner.lost_ones == [server]
    assert link.take() == [("lost", "08006", b"")]
    assert server.link is None


def test_its_last_fatal_word_goes_along(link: Link) -> None:
    _server, wire = connection(link=link)
    fatal = encode.error("terminating connection", "57P01", severity="FATAL")
    wire.say(fatal)
    wire.hang_up()
    assert link.take() == ["ready", fatal, "ready", ("lost", "08006", fatal)]


FATAL = encode.error("terminating connection", "57P01", severity="FATAL")


class Leaves(Link):
    """Is done with the connection when nothing more is owed."""

    server: ServerConnection

    def server_ready(self) -> None:
        super().server_ready()
        self.server.link = None


def test_a_fatal_word_behind_the_last_reply_is_none_of_it() -> None:
    """The transaction is done, and its client goes on with another connection: this one is nobody's again."""
    link = Leaves()
    server, wire = connection(link=link)
    link.server = server
    server.expect(owed.FORWARD_QUERY)
    wire.say(SELECTED + READY + FATAL)
    wire.hang_up()
    assert link.take() == [SELECTED + READY, "ready"]
    assert server.generation == -1


def test_an_idle_connection_that_says_fatal_is_given_to_nobody() -> None:
    server, wire = connection(Owner())
    server.state = ServerState.IDLE
    wire.say(FATAL)
    assert server.closing
    assert server.generation == -1


@pytest.mark.parametrize("tolerant", [False, True])
def test_a_fatal_word_in_answer_to_us_is_the_reason_that_the_client_is_told(
    link: Link, tolerant: bool
) -> None:
    server, wire = connection(link=link)
    server.expect(Expect(owed.QUERY, DROP, tolerant=tolerant))
    wire.say(FATAL)
    assert link.take() == []
    wire.hang_up()
    assert link.take() == [("lost", "57P01", b"")]


def test_an_earlier_error_is_not_its_last_word(link: Link) -> None:
    server, wire = connection(link=link)
    server.expect(owed.FORWARD_QUERY)
    wire.say(ERROR, READY)
    wire.hang_up()
    assert link.take()[-1] == ("lost", "08006", b"")


def test_goodbye_is_said_once_and_what_still_comes_is_ignored(link: Link) -> None:
    server, wire = connection(link=link)
    wire.pause_reading()
    server.close()
    server.close()
    assert wire.take() == encode.TERMINATE
    assert wire.reading, "its hanging up is to be seen"
    wire.say(ROW, b"nonsense")
    assert link.take() == []


# --- backpressure -----------------------------------------------------------------------------------


def test_whoever_has_it_is_told_when_it_cannot_be_written_to(link: Link) -> None:
    server, _ = connection(link=link)
    server.pause_writing()
    server.resume_writing()
    assert link.take() == ["pause", "resume"]
    server.link = None
    server.pause_writing()
    server.resume_writing()
