"""The same scripts direct and through the proxy: every frame must be the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.differential import (
    amid_copy_scripts,
    carried_scripts,
    extended_scripts,
    failed_block_scripts,
    prepared_scripts,
    session_scripts,
    simple_scripts,
    sql_prepared_scripts,
)
from tests.integration.differential.script import (
    RandomCut,
    Script,
    byte_by_byte,
    comparable,
    difference,
    nothing,
    run,
    step,
    whole,
    without_source,
)
from tests.integration.relays import ChoppingRelay
from tests.integration.servers import connect
from tests.rawclient import SYNC, Frame, parse, query

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

SCRIPTS = (
    *simple_scripts.SCRIPTS,
    *extended_scripts.SCRIPTS,
    *prepared_scripts.SCRIPTS,
    *sql_prepared_scripts.SCRIPTS,
    *session_scripts.SCRIPTS,
    *carried_scripts.SCRIPTS,
    *failed_block_scripts.SCRIPTS,
    *amid_copy_scripts.SCRIPTS,
)
SMALL = 3_000  # bytes that are sent one by one
MODES = ("session", "transaction")
CHOOSING = "choosing"  # transaction mode, with clients that may choose their tenant

every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
chunked_scripts = pytest.mark.parametrize(
    "script", [s for s in SCRIPTS if s.chunked], ids=lambda script: script.name
)

Answers = list[list[Frame]]


@pytest.fixture(scope="module")
def direct(shared: EmbeddedServer) -> Callable[[Script], Answers]:
    """What PostgreSQL answers; asked once a script."""
    known: dict[str, Answers] = {}

    def answers(script: Script) -> Answers:
        if script.name not in known:
            prepare(shared, script)
            known[script.name] = comparable(script, run(script, shared.port))
        return known[script.name]

    return answers


def prepare(server: EmbeddedServer, script: Script) -> None:
    if script.setup:
        with connect(server) as connection:
            connection.execute(script.setup)


def tables(port: int, tenants: Any = ("one",)) -> dict[str, dict[str, Any]]:
    """One cluster of its own for one tenant, whom every client means without saying so."""
    return {
        "cluster.one": {"kind": "dedicated", "primary": f"127.0.0.1:{port}", "pool_size": 5},
        "tenant.one": {"tier": "enterprise", "cluster": "one"},
        "user.app": {"tenants": tenants},
        "user.no_login": {"tenants": tenants},
    }


@pytest.fixture(scope="module")
def proxies(shared: EmbeddedServer, start_module_proxy: StartProxy) -> dict[str, Proxy]:
    started = {
        mode: start_module_proxy(tables(shared.port), pool_mode=mode, default_tenant="one") for mode in MODES
    }
    choosing = start_module_proxy(tables(shared.port, "*"), pool_mode="transaction", default_tenant="one")
    return started | {CHOOSING: choosing}


@pytest.fixture(scope="module")
def behind_a_relay(shared: EmbeddedServer, start_module_proxy: StartProxy) -> Iterator[Proxy]:
    """A proxy to which the server's bytes come in pieces."""
    with ChoppingRelay(shared.port, seed=7) as relay:
        yield start_module_proxy(tables(relay.port), pool_mode="transaction", default_tenant="one")


def skip_what_cannot_be(script: Script, mode: str, *, moving: bool = False) -> None:
    if mode != "session" and script.session_only:
        pytest.skip(f"session mode only: {script.why}")
    if moving and script.on_one:
        pytest.skip(f"on one server connection only: {script.why}")


def assert_same(
    script: Script, expected: Answers, proxy: Proxy, cut: Any = whole, between: Callable[[], None] = nothing
) -> None:
    found = comparable(script, run(script, proxy.port, cut, between))
    different = difference(expected, found)
    if different:
        pytest.fail(different, pytrace=False)


# --- the harness itself -----------------------------------------------------------------------------


def test_names_are_unique() -> None:
    names = [script.name for script in SCRIPTS]
    assert len(names) >= 60
    assert sorted(names) == sorted(set(names))


def test_a_difference_is_found(shared: EmbeddedServer) -> None:
    one = Script("one", (step(query("SELECT 1 AS a, 1 / 1")),))
    for other in (
        "SELECT 2 AS a, 1 / 1",
        "SELECT 1 AS b, 1 / 1",
        "SELECT 1 AS a, 1 / 0",
        "SELECT 1 AS a, 1 / 1; ",
    ):
        two = Script("two", (step(query(other)),))
        answers = [comparable(s, run(s, shared.port)) for s in (one, two)]
        assert bool(difference(*answers)) == (other[-1] != " ")


@every_script
def test_direct_is_repeatable(
    script: Script, direct: Callable[[Script], Answers], shared: EmbeddedServer
) -> None:
    """A script that answers differently direct, or when it comes in pieces, would prove nothing."""
    expected = direct(script)
    prepare(shared, script)
    cut = byte_by_byte if script.chunked and script.size <= SMALL else RandomCut(1)
    found = comparable(script, run(script, shared.port, cut))
    assert difference(expected, found) == ""


# --- the proxy --------------------------------------------------------------------------------------


@every_script
@pytest.mark.parametrize("mode", [*MODES, CHOOSING])
def test_whole(
    script: Script,
    mode: str,
    direct: Callable[[Script], Answers],
    proxies: dict[str, Proxy],
    shared: EmbeddedServer,
) -> None:
    skip_what_cannot_be(script, mode)
    expected = direct(script)
    prepare(shared, script)
    if mode == CHOOSING:  # which answers some things itself
        expected = [[without_source(frame) for frame in frames] for frames in expected]
        script = replace(script, own_words=True)
    assert_same(script, expected, proxies[mode])


@chunked_scripts
@pytest.mark.parametrize("mode", MODES)
def test_byte_by_byte(
    script: Script,
    mode: str,
    direct: Callable[[Script], Answers],
    proxies: dict[str, Proxy],
    shared: EmbeddedServer,
) -> None:
    skip_what_cannot_be(script, mode)
    expected = direct(script)
    prepare(shared, script)
    assert_same(script, expected, proxies[mode], byte_by_byte if script.size <= SMALL else RandomCut(2, 200))


@chunked_scripts
@pytest.mark.parametrize("seed", [3, 4])
def test_in_random_pieces(
    script: Script,
    seed: int,
    direct: Callable[[Script], Answers],
    proxies: dict[str, Proxy],
    shared: EmbeddedServer,
) -> None:
    skip_what_cannot_be(script, "transaction")
    expected = direct(script)
    prepare(shared, script)
    assert_same(script, expected, proxies["transaction"], RandomCut(seed))


@chunked_scripts
def test_replies_in_random_pieces(
    script: Script, direct: Callable[[Script], Answers], behind_a_relay: Proxy, shared: EmbeddedServer
) -> None:
    skip_what_cannot_be(script, "transaction")
    expected = direct(script)
    prepare(shared, script)
    assert_same(script, expected, behind_a_relay)


class Disturbers:
    """Two other sessions of the same pool, with other parameters and with statements of the same names.

    One of them is always in a transaction, and takes over the connection used last: so the script's session
    finds itself on another connection in each of its transactions.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._turn = 0
        self._sessions = [
            proxy.raw("app", parameters={
                "application_name": f"disturber {n}", "DateStyle": "German", "TimeZone": "Pacific/Auckland",
                "options": "-c search_path=pg_catalog -c work_mem=3MB",
            })
            for n in range(2)
        ]  # fmt: skip
        names = ("s", "a", "b", "n", "t", "x", "double", *(f"s{n}" for n in range(20)))
        spoken = ("p", "q", "r", "plan", "S", "tiergate_1")
        for number, session in enumerate(self._sessions):
            session.checked(
                session.ask(
                    b"".join(parse(f"SELECT 'disturber {number}'", name) for name in names)
                    + parse("SELECT 'unnamed of a disturber'")
                    + SYNC
                )
            )
            for name in spoken:
                session.checked(session.query(f"PREPARE \"{name}\" AS SELECT 'disturber {number}'"))
        self._sessions[1].checked(self._sessions[1].query("BEGIN"))

    def __call__(self) -> None:
        this, other = self._sessions if self._turn % 2 == 0 else reversed(self._sessions)
        self._turn += 1
        assert this.rows("BEGIN; SHOW search_path") == [["pg_catalog"]]
        assert (
            this.rows("EXECUTE p")
            == this.rows('EXECUTE "tiergate_1"')
            == [[f"disturber {self._sessions.index(this)}"]]
        )
        other.checked(other.query("COMMIT"))


@pytest.fixture(scope="module")
def disturbers(proxies: dict[str, Proxy]) -> Disturbers:
    return Disturbers(proxies["transaction"])


@every_script
def test_among_others(
    script: Script,
    direct: Callable[[Script], Answers],
    proxies: dict[str, Proxy],
    shared: EmbeddedServer,
    disturbers: Disturbers,
) -> None:
    skip_what_cannot_be(script, "transaction", moving=True)
    expected = direct(script)
    prepare(shared, script)
    assert_same(script, expected, proxies["transaction"], between=disturbers)


# --- on two connections ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(shared: EmbeddedServer, start_module_proxy: StartProxy) -> Proxy:
    """Two server connections: none is left that nobody has touched meanwhile."""
    narrow = tables(shared.port)
    narrow["cluster.one"]["pool_size"] = 2
    return start_module_proxy(narrow, pool_mode="transaction", default_tenant="one", query_wait_timeout="10s")


@pytest.fixture(scope="module")
def alternating(narrow: Proxy) -> Disturbers:
    return Disturbers(narrow)


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.apart], ids=lambda script: script.name)
def test_on_two_connections_in_turn(
    script: Script,
    direct: Callable[[Script], Answers],
    narrow: Proxy,
    shared: EmbeddedServer,
    alternating: Disturbers,
) -> None:
    skip_what_cannot_be(script, "transaction")
    expected = direct(script)
    prepare(shared, script)
    assert_same(script, expected, narrow, between=alternating)
