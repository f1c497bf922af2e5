"""SCRAM-SHA-256: the vectors of RFC 7677, both sides against each other and scramp, and hostile messages."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from functools import partial

import pytest
import scramp
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.auth import scram
from proxy.auth.scram import BadExchange, ClientExchange, ServerExchange
from proxy.errors import TiergateError
from tests.examples import examples

CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_FIRST = f"n,,n=user,r={CLIENT_NONCE}".encode()
SERVER_FIRST = f"r={CLIENT_NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
CLIENT_FINAL = (
    f"c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode()
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
FEW = 16  # iterations, where it is not they that are tested
PENCIL = scram.make_verifier("pencil", SALT, FEW)
BINDING = b"digest of a certificate"


def test_the_servers_side_says_what_the_rfc_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.auth.scram._nonce", lambda: SERVER_NONCE.encode())
    server = ServerExchange(scram.make_verifier("pencil", SALT))
    assert server.first(CLIENT_FIRST) == SERVER_FIRST
    assert server.final(CLIENT_FINAL) == SERVER_FINAL


def test_the_clients_side_says_what_the_rfc_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.auth.scram._nonce", lambda: CLIENT_NONCE.encode())
    client = ClientExchange("pencil")
    client._bare = f"n=user,r={CLIENT_NONCE}"  # PostgreSQL's clients leave the name empty
    assert client.first() == CLIENT_FIRST
    assert client.parameters(SERVER_FIRST) == (SALT, 4096)
    assert client.final(SERVER_FIRST) == CLIENT_FINAL
    client.verify(SERVER_FINAL)


def converse(client: ClientExchange, server: ServerExchange) -> None:
    client.verify(server.final(client.final(server.first(client.first()))))


@settings(max_examples=examples(40), deadline=None)
@given(st.text(min_size=1, max_size=20), st.binary(min_size=1, max_size=20), st.integers(1, 20))
def test_both_sides_agree_on_any_password(password: str, salt: bytes, iterations: int) -> None:
    with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate is no text
        password.encode()
        converse(ClientExchange(password), ServerExchange(scram.make_verifier(password, salt, iterations)))


@settings(max_examples=examples(40), deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_another_password_does_not_fit(right: str, wrong: str) -> None:
    if scram.make_verifier(right, SALT, FEW) == scram.make_verifier(wrong, SALT, FEW):
        return  # the same after SASLprep
    with pytest.raises(BadExchange):
        converse(ClientExchange(wrong), ServerExchange(scram.make_verifier(right, SALT, FEW)))


def test_scramps_client_logs_in() -> None:
    client = scramp.ScramClient(["SCRAM-SHA-256"], "user", "pencil")
    server = ServerExchange(scram.make_verifier("pencil", SALT))
    client.set_server_first(server.first(client.get_client_first().encode()).decode())
    client.set_server_final(server.final(client.get_client_final().encode()).decode())


def test_a_password_that_saslprep_refuses_is_used_as_it_is() -> None:
    """As PostgreSQL does; and one that SASLprep would make empty stays what it is."""
    for password in ("bell\x07", "\u0627x", "\u00ad", "a\udcff"):
        converse(ClientExchange(password), ServerExchange(scram.make_verifier(password, SALT, FEW)))
    assert scram.make_verifier("\u00ad", SALT, FEW) != scram.make_verifier("", SALT, FEW)
    assert scram.make_verifier("I\u00adX", SALT, FEW) == scram.make_verifier("IX", SALT, FEW)


def proof_with_another_last_byte(message: bytes) -> bytes:
    head, _, proof = message.rpartition(b",p=")
    raw = bytearray(base64.b64decode(proof))
    raw[-1] ^= 1
    return head + b",p=" + base64.b64encode(bytes(raw))


WRONG, MALFORMED, REFUSED, UNSUPPORTED = "wrong proof", "08P01", "28000", "0A000"


def outcome(step: Callable[[], object]) -> str:
    """ "" or what the client is told: SQLSTATEs are PostgreSQL's own, see tests/integration/test_scram.py."""
    try:
        step()
    except BadExchange:
        return WRONG
    except TiergateError as error:
        return error.sqlstate
    return ""


def unproved(message: bytes) -> bytes:
    return message.rpartition(b",p=")[0]


FINALS: list[tuple[str, Callable[[bytes], bytes]]] = [
    (WRONG, proof_with_another_last_byte),
    (WRONG, lambda m: m.replace(b",p=", b",x=extension,p=")),  # of which the proof does not know
    (WRONG, lambda m: m.replace(b",p=", b",m=must,p=")),
    (MALFORMED, unproved),
    (MALFORMED, lambda m: unproved(m) + b","),
    (MALFORMED, lambda m: unproved(m) + b",p"),
    (MALFORMED, lambda m: unproved(m) + b",p="),
    (MALFORMED, lambda m: unproved(m) + b",p=!"),
    (MALFORMED, lambda m: m[:-1]),
    (MALFORMED, lambda m: m[:-4]),
    (MALFORMED, lambda m: m + b"AAAA"),
    (MALFORMED, lambda m: m + b",x=y"),
    (MALFORMED, lambda m: m + b","),
    (MALFORMED, lambda m: m + b"\0"),
    (MALFORMED, lambda m: unproved(m) + b",p=" + base64.b64encode(bytes(31))),
    (MALFORMED, lambda m: unproved(m) + b",p=" + base64.b64encode(bytes(33))),
    (MALFORMED, lambda m: m.replace(b",p=", b",1=x,p=")),
    (MALFORMED, lambda m: m.replace(b",p=", b",xx,p=")),
    (MALFORMED, lambda m: m.replace(b"c=biws", b"c=eSws")),
    (MALFORMED, lambda m: m.replace(b"c=biws", b"c=biw")),
    (MALFORMED, lambda m: m.replace(b"c=biws", b"c=")),
    (MALFORMED, lambda m: m.replace(b"c=biws,", b"")),
    (MALFORMED, lambda m: b",".join([*m.split(b",")[1::-1], *m.split(b",")[2:]])),
    (MALFORMED, lambda m: m.replace(b"r=", b"r=x")),
    (MALFORMED, lambda m: m.replace(b"r=", b"r=,x=")),
    (MALFORMED, lambda m: b"\xff" + m),
    (MALFORMED, lambda m: b""),
]


@pytest.mark.parametrize(("told", "change"), FINALS)
def test_a_final_message_that_was_touched_is_refused(told: str, change: Callable[[bytes], bytes]) -> None:
    client, server = ClientExchange("pencil"), ServerExchange(PENCIL)
    final = client.final(server.first(client.first()))
    assert outcome(lambda: server.final(change(final))) == told
    assert not server.client_key
    server.final(final)  # untouched it would have done


def test_every_beginning_of_a_final_message_is_refused() -> None:
    client, server = ClientExchange("pencil"), ServerExchange(PENCIL)
    final = client.final(server.first(client.first()))
    for length in range(len(final)):
        assert outcome(lambda length=length: server.final(final[:length])) == MALFORMED  # type: ignore[misc]


FIRSTS = [
    (MALFORMED, b""), (MALFORMED, b"n"), (MALFORMED, b"n,"), (MALFORMED, b"n,,"), (MALFORMED, b"n,,n=,r="),
    (MALFORMED, b"n,,n=user"), (MALFORMED, b"n,,r"), (MALFORMED, b"n,,r=abc"), (MALFORMED, b"n,,r=abc,n="),
    (MALFORMED, b"x,,n=,r=abc"), (MALFORMED, b",,n=,r=abc"), (MALFORMED, b"nn,,n=,r=abc"), (MALFORMED, b"n,x,n=,r=abc"),
    (MALFORMED, b"n,,n=,r=abc\0"), (MALFORMED, b"n,,n=\0,r=abc"), (MALFORMED, b"n,,n=,r=a bc"), (MALFORMED, b"n,,n=,r=\xff"),
    (MALFORMED, b"n,,n=,r=abc,x"), (MALFORMED, b"n,,n=,r=abc,1=x"), (MALFORMED, b"n,,n=,r=abc,,x=y"),
    (MALFORMED, b"p=tls-server-end-point,,n=,r=abc"), (MALFORMED, b"p"), (MALFORMED, b"p,,n=,r=abc"),
    (UNSUPPORTED, b"n,a=other,n=,r=abc"), (UNSUPPORTED, b"n,,m=ext,n=,r=abc"),
    ("", b"n,,n=,r=abc"), ("", b"y,,n=,r=abc"), ("", b"n,,n=anybody,r=abc"), ("", b"n,,n=,r=abc,x=extension,y="),
    ("", b"n,,n=,r=abc,"), ("", b"n,,n=\xff,r=abc"),
]  # fmt: skip


@pytest.mark.parametrize(("told", "message"), FIRSTS)
def test_a_first_message_that_is_not_scram_is_refused(told: str, message: bytes) -> None:
    assert outcome(lambda: ServerExchange(PENCIL).first(message)) == told


def test_an_extension_that_both_know_of_is_in_what_is_signed() -> None:
    client, server = ClientExchange("pencil"), ServerExchange(PENCIL)
    client._bare += ",x=extension"
    client.verify(server.final(client.final(server.first(client.first()))))


@settings(max_examples=examples(100))
@given(st.binary(max_size=60), st.binary(max_size=60), st.booleans())
def test_garbage_is_told_from_scram(first: bytes, final: bytes, plus: bool) -> None:
    server = ServerExchange(PENCIL, BINDING)
    outcome(lambda: server.first(first, plus=plus))
    server = ServerExchange(PENCIL)
    server.first(b"n,,n=,r=abc")
    assert outcome(lambda: server.final(final))
    client = ClientExchange("pencil")
    for message in (first, final, b"r=" + client._nonce.encode() + b"x," + first):
        with contextlib.suppress(BadExchange):
            client.final(message)
            raise AssertionError("garbage was answered with a proof")
    with pytest.raises(BadExchange):
        client.verify(final)


# --- channel binding --------------------------------------------------------------------------------


def bound(first: bytes, binding: bytes, *, plus: bool = True, offered: bool = True) -> None:
    """A client that says `first` (with its nonce) and binds to `binding`."""
    client = ClientExchange("pencil")
    server = ServerExchange(PENCIL, BINDING if offered else b"")
    server_first = server.first(first + client._bare.encode(), plus=plus)
    salted = scram.salted_password("pencil", SALT, FEW)
    nonce = server_first.split(b",")[0]
    bare = b"c=" + base64.b64encode(first + binding) + b"," + nonce
    message = b",".join((client._bare.encode(), server_first, bare))
    key = scram._hmac(salted, b"Client Key")
    signature = scram._hmac(PENCIL.stored_key, message)
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    server.final(bare + b",p=" + base64.b64encode(proof))


def test_channel_binding_binds() -> None:
    bound(b"p=tls-server-end-point,,", BINDING)
    bound(b"y,,", b"", plus=False, offered=False)
    bound(b"n,,", b"", plus=False)
    for told, first, binding, plus, offered in (
        (REFUSED, b"p=tls-server-end-point,,", b"another certificate", True, True),
        (REFUSED, b"p=tls-server-end-point,,", b"", True, True),
        (MALFORMED, b"p=tls-unique,,", BINDING, True, True),
        (MALFORMED, b"p=tls-server-end-point-,,", BINDING, True, True),
        (MALFORMED, b"n,,", BINDING, True, True),
        (MALFORMED, b"y,,", BINDING, True, True),
        (MALFORMED, b"n,,", BINDING, False, True),
        (MALFORMED, b"p=tls-server-end-point,,", BINDING, False, True),
        (REFUSED, b"y,,", b"", False, True),  # somebody in the middle has taken the offer away
    ):
        assert outcome(partial(bound, first, binding, plus=plus, offered=offered)) == told


# --- servers that do not prove themselves ---------------------------------------------------------------


def test_a_server_that_was_not_shown_a_proof_cannot_have_proved_itself() -> None:
    for said in (b"v=", b"e=other-error", b"v=AAAA", b"", SERVER_FINAL):
        client = ClientExchange("pencil")
        client.first()
        with pytest.raises(BadExchange):
            client.verify(said)


def test_a_server_with_another_key_is_found_out() -> None:
    client, server = ClientExchange("pencil"), ServerExchange(PENCIL)
    client.final(server.first(client.first()))
    for said in (b"v=", b"v=" + base64.b64encode(bytes(32)), b"e=invalid-proof"):
        with pytest.raises(BadExchange):
            client.verify(said)


def test_a_server_gets_one_proof() -> None:
    client, server = ClientExchange("pencil"), ServerExchange(PENCIL)
    first = server.first(client.first())
    client.final(first)
    with pytest.raises(BadExchange):
        client.final(first)


@pytest.mark.parametrize(
    "said",
    ["r={n}x,s=AAAA", "r={n}x,i=1", "r={n}x,s=AAAA,i=0", "r={n}x,s=AAAA,i=-1", "r={n}x,s=AAAA,i=1000001",
     "r=x{n},s=AAAA,i=1", "r={n}x,s=!,i=1", "r={n}x,s=AAAA,i=x", "r={n}x,s=AAAA,i=1,m=e", "s=AAAA,i=1"],
)  # fmt: skip
def test_strange_parameters_of_a_server_are_refused(said: str) -> None:
    client = ClientExchange("pencil")
    message = said.format(n=client._nonce).encode()
    with pytest.raises(BadExchange):
        client.parameters(message)
    with pytest.raises(BadExchange):
        client.final(message)


# --- verifiers ----------------------------------------------------------------------------------------


def written(verifier: scram.Verifier) -> str:
    salt, stored, server = (
        base64.b64encode(part).decode() for part in (verifier.salt, verifier.stored_key, verifier.server_key)
    )
    return f"SCRAM-SHA-256${verifier.iterations}:{salt}${stored}:{server}"


def stored(verifier: scram.Verifier) -> tuple[bytes, int, bytes, bytes]:
    return verifier.salt, verifier.iterations, verifier.stored_key, verifier.server_key


def test_a_verifier_is_read_as_postgresql_writes_it() -> None:
    verifier = scram.make_verifier("pencil", SALT)
    assert stored(scram.read_verifier(written(verifier))) == stored(verifier)
    mechanism = scramp.ScramMechanism("SCRAM-SHA-256")
    salt, key, server, iterations = mechanism.make_auth_info("pencil", iteration_count=4096, salt=SALT)
    assert stored(verifier) == (salt, iterations, key, server)
    assert scram.matches(verifier, "pencil")
    assert not scram.matches(verifier, "pencils")


@pytest.mark.parametrize(
    "text",
    ["", "pencil", "SCRAM-SHA-256$", "SCRAM-SHA-256$4096:AAAA", "SCRAM-SHA-256$4096$AAAA:AAAA",
     "SCRAM-SHA-256$x:AAAA$AAAA:AAAA", "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA", "SCRAM-SHA-256$4096:é$é:é",
     written(PENCIL).replace("$16:", "$0:"), written(PENCIL).replace("$16:", "$99999999:"),
     written(PENCIL).replace("SHA-256", "SHA-1"), written(PENCIL) + "=", written(PENCIL) + "$"],
)  # fmt: skip
def test_what_is_no_verifier_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its message is nobody's
        scram.read_verifier(text)


def test_a_salted_password_is_kept_but_not_that_of_a_wrong_guess() -> None:
    verifier = scram.make_verifier("kept", b"salt of this test", FEW)
    assert scram.is_known("kept", verifier.salt, FEW)
    assert not scram.matches(verifier, "guess")
    assert not scram.is_known("guess", verifier.salt, FEW)
    scram._salted.clear()
    assert scram.matches(verifier, "kept")
    assert scram.is_known("kept", verifier.salt, FEW)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scram, "_REMEMBERED", 5)
    scram._salted.clear()
    for number in range(20):
        scram.make_verifier(f"password {number}", SALT, 1)
    assert len(scram._salted) == 5
    assert scram.is_known("password 19", SALT, 1)
    assert not scram.is_known("password 0", SALT, 1)
