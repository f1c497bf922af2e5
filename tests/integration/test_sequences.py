"""What a session reads of sequences by currval() and lastval() is its own, or an error as on a connection of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.servers import connect
from tests.integration.tables import one_connection
from tests.rawclient import SYNC, RawClient, ask, errors, query, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
NEXT, CURRENT, LAST = "SELECT nextval('drawn')", "SELECT currval('drawn')", "SELECT lastval()"
INSERT = "INSERT INTO numbered (note) VALUES ('x')"


@pytest.fixture(autouse=True)
def sequences(shared: EmbeddedServer) -> Iterator[None]:
    with connect(shared) as admin:
        admin.execute(
            "CREATE SEQUENCE drawn; CREATE TABLE numbered (id serial, note text);"
            "CREATE FUNCTION draws() RETURNS void LANGUAGE sql AS $$SELECT nextval('drawn')$$;"
            "GRANT ALL ON SEQUENCE drawn, numbered_id_seq TO app; GRANT ALL ON numbered TO app"
        )
        yield
        admin.execute("DROP SEQUENCE drawn CASCADE; DROP TABLE numbered; DROP FUNCTION draws")


def pins(proxy: Proxy, client: RawClient) -> str:
    (session,) = proxy.call(lambda: [s for s in proxy.worker.plane.sessions if s.pid == client.pid])
    wait_until(lambda: proxy.call(lambda: session.inquiry is None and not session.holding))
    return ", ".join(sorted(reason.name for reason in session.pins))


@pytest.fixture
def proxy(start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    """One connection, and a user whose sessions keep what they draw."""
    keeping = {"user.app": all_tiers["user.app"] | {"keep_sequences": True}}
    return start_proxy(one_connection(all_tiers, size=2) | keeping)


def test_nobody_reads_what_another_has_drawn(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(one_connection(all_tiers))
    one, other = proxy.raw(), proxy.raw()
    assert one.value(NEXT) == "1"
    assert other.value("SELECT 1") == "1"
    for text in (CURRENT, LAST, f"BEGIN; {CURRENT}", f"SELECT 1; {LAST}"):
        for request in (query(text), ask(CURRENT) + SYNC):
            assert sqlstates(other.ask(request)) == ["55000"]
            other.query("ROLLBACK")
    one.checked(one.query("BEGIN"))
    one.checked(one.query("SELECT 1"))
    assert sqlstates(one.query(CURRENT)) == ["55000"]  # two sessions have used the connection since
    one.query("ROLLBACK")


def test_who_has_asked_keeps_what_it_draws(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(one_connection(all_tiers, size=2))
    one, other = proxy.raw(), proxy.raw()
    for client in (one, other, one, other):
        client.query("SELECT 1")
    assert sqlstates(one.query(CURRENT)) == ["55000"]
    assert one.value(NEXT) == "1"
    assert pins(proxy, one) == "SEQUENCE"
    assert other.value(NEXT) == "2"
    for _ in range(2):
        assert (one.value(CURRENT), one.value(LAST)) == ("1", "1")
        assert other.prepared(CURRENT) == [["2"]]


def test_a_session_alone_on_its_connection_reads_its_own(start_proxy: StartProxy, all_tiers: Tables) -> None:
    client = start_proxy(one_connection(all_tiers)).raw()
    for number in ("1", "2"):
        client.checked(client.query(INSERT))
        assert client.value("SELECT currval('numbered_id_seq')") == number
        assert client.value("SELECT lastval()") == number


@pytest.mark.parametrize(
    "draw",
    [NEXT, INSERT, "SELECT draws()", "DO $$BEGIN PERFORM draws(); END$$", "BEGIN; SELECT draws(); COMMIT"],
)
def test_whoever_draws_is_pinned(proxy: Proxy, draw: str) -> None:
    clients = [proxy.raw() for _ in range(4)]
    for client in clients:
        client.checked(client.query("SELECT 1"))
        assert pins(proxy, client) == ""
    one, two = clients[:2]
    one.checked(one.query(draw))
    assert pins(proxy, one) == "SEQUENCE"
    for client in clients[1:]:
        assert sqlstates(client.query(LAST)) == ["55000"]
    two.checked(two.query(draw))
    assert (one.value(LAST), two.value(LAST)) == ("1", "2")


@pytest.mark.parametrize("end", ["DISCARD ALL", "DISCARD SEQUENCES"])
def test_the_pin_ends_with_what_was_drawn(proxy: Proxy, end: str) -> None:
    client = proxy.raw()
    client.checked(client.query(NEXT))
    assert pins(proxy, client) == "SEQUENCE"
    client.checked(client.query(end))
    assert pins(proxy, client) == ""
    assert sqlstates(client.query(LAST)) == ["55000"]


def test_what_is_set_is_read(proxy: Proxy) -> None:
    one, other = proxy.raw(), proxy.raw()
    one.checked(one.query("SELECT setval('drawn', 7)"))
    assert pins(proxy, one) == "SEQUENCE"
    assert sqlstates(other.query(CURRENT)) == ["55000"]
    assert one.value(CURRENT) == "7"


def test_a_batch_that_has_begun_its_work_is_told_at_once(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(one_connection(all_tiers))
    for client in (proxy.raw(), proxy.raw()):
        client.checked(client.query(NEXT))
    assert errors(client.ask(ask("SELECT 1") + ask(CURRENT) + SYNC))[0]["M"].startswith(
        "currval() and lastval() are"
    )
    assert sqlstates(client.ask(ask(NEXT) + ask(CURRENT) + SYNC)) == []
