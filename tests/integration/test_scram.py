"""SCRAM that is wrong in every way, asked of PostgreSQL and of the proxy: both say the same SQLSTATE, and hang up."""

from __future__ import annotations

import base64
import ssl
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from proxy.auth.binding import server_end_point
from proxy.auth.scram import ClientExchange
from proxy.wire import encode
from tests.integration.servers import APP_PASSWORD, DATABASE
from tests.rawclient import Closed, RawClient, kinds, sqlstates, startup
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy
    from tests.integration.servers import Certificates, DebianServer

Change = Callable[[bytes], bytes]
PLAIN, PLUS = b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS"
WELCOME = "R..."


def as_it_is(message: bytes) -> bytes:
    return message


def unproved(message: bytes) -> bytes:
    return message.rpartition(b",p=")[0]


def initial(mechanism: bytes, said: bytes, length: int | None = None) -> bytes:
    return mechanism + b"\0" + struct.pack("!i", len(said) if length is None else length) + said


FIRSTS: dict[str, Change] = {
    "right": as_it_is,
    "empty": lambda m: b"",
    "flag y": lambda m: b"y" + m[1:],
    "flag p": lambda m: b"p=tls-server-end-point" + m[1:],
    "flag x": lambda m: b"x" + m[1:],
    "no flag": lambda m: m[1:],
    "flag alone": lambda m: b"n",
    "no comma": lambda m: m.replace(b",,", b"", 1),
    "an authorization identity": lambda m: m.replace(b"n,,", b"n,a=other,", 1),
    "another attribute there": lambda m: m.replace(b"n,,", b"n,x=other,", 1),
    "a mandatory extension": lambda m: m.replace(b"n,,", b"n,,m=must,", 1),
    "an extension": lambda m: m + b",x=y",
    "an extension that is none": lambda m: m + b",x",
    "an extension by number": lambda m: m + b",1=y",
    "no name": lambda m: m.replace(b"n=,", b"", 1),
    "a name": lambda m: m.replace(b"n=,", b"n=somebody,", 1),
    "no nonce": lambda m: m.partition(b"r=")[0],
    "a nonce that is no text": lambda m: m + b"\x7f",
    "a zero within": lambda m: m.replace(b"n=", b"n=\0", 1),
    "a zero at the end": lambda m: m + b"\0",
    "not SCRAM": lambda m: b"hello",
}
FINALS: dict[str, Change] = {
    "empty": lambda m: b"",
    "no binding": lambda m: m.partition(b",")[2],
    "another flag bound": lambda m: m.replace(b"biws", b"eSws"),
    "binding cut": lambda m: m.replace(b"biws", b"biw"),
    "no nonce": lambda m: m.replace(b"r=", b"x="),
    "another nonce": lambda m: m.replace(b"r=", b"r=x"),
    "nonce cut": lambda m: unproved(m)[:-1] + b"," + m.rpartition(b",")[2],
    "an extension that was not proved": lambda m: unproved(m) + b",x=y," + m.rpartition(b",")[2],
    "no proof": unproved,
    "an empty proof": lambda m: unproved(m) + b",p=",
    "proof cut": lambda m: m[:-1],
    "a group cut": lambda m: m[:-4],
    "proof that is no base64": lambda m: unproved(m) + b",p=" + b"!" * 44,
    "proof too short": lambda m: unproved(m) + b",p=" + base64.b64encode(bytes(31)),
    "proof too long": lambda m: unproved(m) + b",p=" + base64.b64encode(bytes(33)),
    "wrong proof": lambda m: unproved(m) + b",p=" + base64.b64encode(bytes(32)),
    "more behind the proof": lambda m: m + b",x=y",
    "a zero behind the proof": lambda m: m + b"\0",
    "too long": lambda m: unproved(m) + b",x=" + b"y" * 2_000 + b",p=" + m.rpartition(b"p=")[2],
    "right": as_it_is,
}


class Two:
    """The same said to a server and to the proxy in front of it."""

    def __init__(self, server: int, proxy: Proxy, context: ssl.SSLContext | None = None) -> None:
        self.sides = ((server, "app"), (proxy.port, "app@ent_1"))
        self.proxy = proxy
        self.context = context

    def say(self, said: Callable[[RawClient], None]) -> tuple[str, str]:
        return tuple(self._said(port, user, said) for port, user in self.sides)  # type: ignore[return-value]

    def _said(self, port: int, user: str, said: Callable[[RawClient], None]) -> str:
        with RawClient(port) as client:
            if self.context is not None:
                client.start_tls(self.context, "localhost")
            client.send(startup({"user": user, "database": DATABASE}))
            asked = client.read()
            assert asked.kind == "R", asked
            offers = asked.body[4:].split(b"\0")
            assert (PLUS in offers) == (self.context is not None)
            try:
                said(client)
            except Closed as closed:
                return ",".join(sqlstates(closed.frames)) or "closed"
            frames = client.read_until("EZ")
            if frames[-1].kind == "E":
                client.read_to_eof()
                return ",".join(sqlstates(frames))
            return WELCOME if kinds(frames).startswith("R") else kinds(frames)


def talk(
    first: Change = as_it_is, final: Change = as_it_is, mechanism: bytes = PLAIN, flag: bytes = b"n"
) -> Callable[[RawClient], None]:
    def said(client: RawClient) -> None:
        binding = b""
        if isinstance(client.sock, ssl.SSLSocket):
            binding = server_end_point(client.sock.getpeercert(True) or b"")
        driver = ClientExchange(APP_PASSWORD, binding=b"" if flag == b"n" else binding, plus=flag == b"p")
        client.send(encode.frame(b"p", initial(mechanism, first(driver.first()))))
        offered = client.read_until("RE")
        if offered[-1].kind == "E":
            raise Closed(offered)
        client.send(encode.frame(b"p", final(driver.final(offered[0].body[4:]))))

    return said


@pytest.fixture(scope="module")
def two(
    start_module_proxy: StartProxy, all_tiers: dict[str, dict[str, Any]], dedicated: EmbeddedServer
) -> Two:
    tables = {
        name: table for name, table in all_tiers.items() if name not in ("user.no_login", "user.postgres")
    }
    return Two(dedicated.port, start_module_proxy(tables, auth_type="scram-sha-256"))


def over(two: Two) -> None:
    proxy = two.proxy
    wait_until(lambda: proxy.call(lambda: proxy.worker._acceptor.pending) == 0, what="all logins over")
    wait_until(lambda: not proxy.call(lambda: proxy.worker.plane.sessions), what="no session")


@pytest.mark.parametrize("case", FIRSTS)
def test_a_first_message(two: Two, case: str) -> None:
    server, proxy = two.say(talk(first=FIRSTS[case]))
    assert proxy == server
    over(two)


@pytest.mark.parametrize("case", FINALS)
def test_a_final_message(two: Two, case: str) -> None:
    server, proxy = two.say(talk(final=FINALS[case]))
    assert proxy == server
    over(two)


GOOD = b"n,,n=,r=abcdefgh"
RESPONSES = {
    "empty": b"",
    "no mechanism": b"\0",
    "no zero": PLAIN,
    "no length": PLAIN + b"\0",
    "another mechanism": initial(b"SCRAM-SHA-1", GOOD),
    "binding where none was offered": initial(PLUS, GOOD),
    "shorter than it says": initial(PLAIN, GOOD, len(GOOD) + 1),
    "longer than it says": initial(PLAIN, GOOD, len(GOOD) - 1),
    "longer than PostgreSQL reads": initial(PLAIN, GOOD + b"x" * 2_000),
}


@pytest.mark.parametrize("case", RESPONSES)
def test_a_first_response(two: Two, case: str) -> None:
    server, proxy = two.say(lambda client: client.send(encode.frame(b"p", RESPONSES[case])))
    assert proxy == server
    over(two)


def test_what_comes_in_pieces_or_early(two: Two) -> None:
    def byte_by_byte(client: RawClient) -> None:
        driver = ClientExchange(APP_PASSWORD)
        said = encode.frame(b"p", initial(PLAIN, driver.first()))
        client.send_in_pieces(said[at : at + 1] for at in range(len(said)))
        said = encode.frame(b"p", driver.final(client.read().body[4:]))
        client.send_in_pieces(said[at : at + 1] for at in range(len(said)))

    assert two.say(byte_by_byte) == (WELCOME, WELCOME)

    def early(client: RawClient) -> None:
        """The proof is said before there is anything to prove."""
        proof = b"c=biws,r=abcdefgh,p=" + base64.b64encode(bytes(32))
        client.send(encode.frame(b"p", initial(PLAIN, GOOD)) + encode.frame(b"p", proof))
        assert client.read().kind == "R"

    def twice(client: RawClient) -> None:
        client.send(encode.frame(b"p", initial(PLAIN, GOOD)) * 2)
        assert client.read().kind == "R"

    def query(client: RawClient) -> None:
        client.send(encode.query(b"SELECT 1"))

    def query_behind(client: RawClient) -> None:
        client.send(encode.frame(b"p", initial(PLAIN, GOOD)) + encode.query(b"SELECT 1"))
        assert client.read().kind == "R"

    for said in (early, twice, query, query_behind):
        server, proxy = two.say(said)
        assert proxy == server == "08P01", said
    over(two)


def test_who_leaves_in_the_middle_is_forgotten(two: Two) -> None:
    driver = ClientExchange(APP_PASSWORD)
    first = encode.frame(b"p", initial(PLAIN, driver.first()))
    before = two.proxy.call(lambda: two.proxy.worker.plane.process.login_failures)
    left = 0
    for said, answers in (
        (b"", 0), (startup({"user": "app@ent_1"})[:9], 0), (startup({"user": "app@ent_1"}), 1),
        (startup({"user": "app@ent_1"}) + first[:7], 1), (startup({"user": "app@ent_1"}) + first, 2),
        (startup({"user": "app@ent_1"}) + first + b"p\0\0", 2),
    ):  # fmt: skip
        with two.proxy.unnamed() as client:
            client.send(said)
            for _ in range(answers):
                assert client.read().kind == "R"
            client.hang_up()
        left += 1
        over(two)
    wait_until(lambda: two.proxy.call(lambda: len(two.proxy.worker._acceptor._present)) == 0)
    assert two.proxy.call(lambda: two.proxy.worker.plane.process.login_failures) <= before + left


# --- over TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bound(
    start_module_proxy: StartProxy,
    all_tiers: dict[str, dict[str, Any]],
    tls_server: DebianServer,
    certificates: Certificates,
) -> Two:
    tables = {
        name: table for name, table in all_tiers.items() if name not in ("user.no_login", "user.postgres")
    }
    proxy = start_module_proxy(
        tables,
        auth_type="scram-sha-256",
        client_tls_sslmode="require",
        client_tls_cert_file=certificates.server_cert,
        client_tls_key_file=certificates.server_key,
    )
    return Two(tls_server.port, proxy, ssl.create_default_context(cafile=certificates.ca))


BOUND = {
    "not bound": (PLAIN, b"n", as_it_is, as_it_is),
    "bound": (PLUS, b"p", as_it_is, as_it_is),
    "the offer was taken away": (PLAIN, b"y", as_it_is, as_it_is),
    "bound, and not said so": (PLUS, b"n", as_it_is, as_it_is),
    "bound, and not understood": (PLUS, b"y", as_it_is, as_it_is),
    "said to be bound": (PLAIN, b"p", as_it_is, as_it_is),
    "bound in another way": (PLUS, b"p", lambda m: m.replace(b"end-point", b"unknown"), as_it_is),
    "bound in a way that goes on": (PLUS, b"p", lambda m: m.replace(b"end-point", b"end-points"), as_it_is),
    "bound to nothing": (PLUS, b"p", as_it_is, lambda m: b"c=biws," + m.partition(b",")[2]),
    "bound to another": (PLUS, b"p", as_it_is, lambda m: m.replace(b"c=", b"c=AAAA", 1)),
    "wrong proof": (PLUS, b"p", as_it_is, FINALS["wrong proof"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BOUND)
def test_channel_binding(bound: Two, case: str) -> None:
    mechanism, flag, first, final = BOUND[case]
    server, proxy = bound.say(talk(first, final, mechanism, flag))
    assert proxy == server
    over(bound)
