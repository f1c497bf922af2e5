"""The methods towards clients: who gets in with what is stored, and what the others learn (nothing)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.auth import scram
from proxy.auth.exchange import Asking, Exchange
from proxy.auth.md5 import Md5
from proxy.auth.methods import METHODS, exchange
from proxy.auth.plain import Plain
from proxy.auth.sasl import Sasl
from proxy.auth.to_server import ToServer
from proxy.errors import InvalidPassword, NotAuthorized, ProtocolViolation
from proxy.wire import encode
from tests.examples import examples

PASSWORD = "pêncil"
MD5 = "md5" + hashlib.md5((PASSWORD + "app").encode()).hexdigest()


def _written(password: str, iterations: int = 64) -> str:
    made = scram.make_verifier(password, b"0123456789abcdef", iterations)
    salt, stored, server = (
        base64.b64encode(part).decode() for part in (made.salt, made.stored_key, made.server_key)
    )
    return f"SCRAM-SHA-256${iterations}:{salt}${stored}:{server}"


SCRAM = _written(PASSWORD)
STORED = {"plain": PASSWORD, "md5": MD5, "scram-sha-256": SCRAM}


def log_in(talk: Exchange, password: str, user: str = "app") -> bytes:
    """Answers as a driver does (by the side that talks to servers). All that was sent to the client."""
    driver = ToServer(user, password)
    step = talk.start()
    sent = step.send
    while not step.done:
        code, data = struct.unpack_from("!I", step.send, 5)[0], step.send[9:]
        step = talk.respond(driver.respond(code, data)[5:])
        sent += step.send
    return sent


GETS_IN = [
    ("plain", "plain"), ("plain", "md5"), ("plain", "scram-sha-256"), ("md5", "plain"), ("md5", "md5"),
    ("md5", "scram-sha-256"), ("scram-sha-256", "plain"), ("scram-sha-256", "scram-sha-256"),
]  # fmt: skip


@pytest.mark.parametrize(("auth_type", "kind"), GETS_IN)
def test_the_right_password_gets_in_and_no_other(auth_type: str, kind: str) -> None:
    asking = Asking("app", True, STORED[kind])
    assert log_in(exchange(auth_type, asking), PASSWORD).endswith(encode.AUTHENTICATION_OK)
    for wrong in ("pencil", PASSWORD + "x", "x"):
        with pytest.raises(InvalidPassword, match='password authentication failed for user "app"'):
            log_in(exchange(auth_type, asking), wrong)


@pytest.mark.parametrize(("auth_type", "kind"), [*GETS_IN, ("scram-sha-256", "md5")])
def test_the_stored_text_itself_is_no_password(auth_type: str, kind: str) -> None:
    """A stolen file of hashes opens no door (but for md5's own, which is why nobody should use it)."""
    if kind == "plain":
        return
    talk = exchange(auth_type, Asking("app", True, STORED[kind]))
    step = talk.start()
    with pytest.raises((InvalidPassword, ProtocolViolation)):
        talk.respond(STORED[kind].encode() + b"\0")
    assert not step.done


def test_scram_cannot_be_done_from_an_md5_hash() -> None:
    with pytest.raises(InvalidPassword):
        log_in(exchange("scram-sha-256", Asking("app", True, MD5)), PASSWORD)


@pytest.mark.parametrize("auth_type", ["plain", "md5", "scram-sha-256"])
@pytest.mark.parametrize("stored", ["", PASSWORD, "SCRAM-SHA-256$nonsense"])
def test_neither_unknown_users_nor_empty_or_broken_secrets_get_in(auth_type: str, stored: str) -> None:
    known = not stored or stored.startswith("SCRAM")
    for password in (PASSWORD, "x", stored or "y"):
        if password.startswith("SCRAM"):
            continue  # the driver's side takes that for a hash
        with pytest.raises(InvalidPassword):
            log_in(exchange(auth_type, Asking("app", known, stored)), password)
    if auth_type == "plain":
        for body in (b"", b"\0", b"x", PASSWORD.encode()):
            with pytest.raises(InvalidPassword):
                exchange(auth_type, Asking("app", known, stored)).respond(body)


def shape(auth_type: str, asking: Asking) -> list[object]:
    """What a stranger sees of a login with a wrong password, without what is random in it."""
    talk = exchange(auth_type, asking)
    driver = ToServer(asking.user, "guess")
    seen: list[object] = []
    step = talk.start()
    try:
        while True:
            said = step.send
            code = struct.unpack_from("!I", said, 5)[0]
            if code == 11:
                _nonce, salt, iterations = said[9:].split(b",")
                seen.append((code, len(said), len(salt), iterations))
            else:
                seen.append((code, len(said)))
            step = talk.respond(driver.respond(code, said[9:])[5:])
    except InvalidPassword as error:
        return [*seen, type(error), error.message, error.sqlstate, error.detail, error.hint]


@pytest.mark.parametrize("auth_type", ["plain", "md5", "scram-sha-256"])
def test_an_unknown_user_looks_like_a_known_one(auth_type: str) -> None:
    known = shape(auth_type, Asking("app", True, PASSWORD))
    assert known[-5] is InvalidPassword
    assert shape(auth_type, Asking("app", False, "")) == known
    if auth_type == "scram-sha-256":
        assert shape(auth_type, Asking("app", True, _written(PASSWORD, scram.ITERATIONS))) == known
        assert shape(auth_type, Asking("app", True, MD5)) == known


def server_first(user: str) -> bytes:
    talk = Sasl(Asking(user, False, ""))
    talk.start()
    body = encode.sasl_initial(b"SCRAM-SHA-256", b"n,,n=,r=abc")[5:]
    return talk.respond(body).send


def test_the_salt_of_an_unknown_user_is_its_own_and_always_the_same() -> None:
    salts = {name: [server_first(name).split(b",")[1] for _ in range(3)] for name in ("nobody", "other")}
    assert len(set(salts["nobody"])) == 1
    assert salts["nobody"][0] != salts["other"][0]


def test_md5_asks_with_a_new_salt_each_time() -> None:
    salts = {Md5(Asking("app", True, PASSWORD)).start().send[9:] for _ in range(20)}
    assert len(salts) > 1
    assert {len(salt) for salt in salts} == {4}


# --- what SASL's own framing can get wrong ---------------------------------------------------------------


def initial(mechanism: bytes, data: bytes, length: int | None = None) -> bytes:
    return mechanism + b"\0" + struct.pack("!i", len(data) if length is None else length) + data


GOOD = b"n,,n=,r=abc"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"SCRAM-SHA-256", initial(b"SCRAM-SHA-1", GOOD), initial(b"", GOOD),
        initial(b"SCRAM-SHA-256-PLUS", GOOD), initial(b"SCRAM-SHA-256", GOOD, -1),
        initial(b"SCRAM-SHA-256", GOOD, len(GOOD) + 1), initial(b"SCRAM-SHA-256", GOOD, 0),
        initial(b"scram-sha-256", GOOD),
    ],
)  # fmt: skip
def test_a_malformed_first_response_is_a_protocol_violation(body: bytes) -> None:
    talk = Sasl(Asking("app", True, PASSWORD))
    talk.start()
    with pytest.raises(ProtocolViolation):
        talk.respond(body)


def test_channel_binding_is_offered_where_it_can_be_checked() -> None:
    assert Sasl(Asking("app", True, PASSWORD)).start().send[9:] == b"SCRAM-SHA-256\0\0"
    with_binding = Sasl(Asking("app", True, PASSWORD, binding=b"digest")).start().send[9:]
    assert with_binding == b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"


@settings(max_examples=examples(60), deadline=None)
@given(
    st.sampled_from(["plain", "md5", "scram-sha-256"]),
    st.sampled_from(["", PASSWORD, MD5, SCRAM, "SCRAM-SHA-256$broken"]),
    st.booleans(),
    st.lists(
        st.binary(max_size=80)
        | st.binary(max_size=40).map(lambda data: initial(b"SCRAM-SHA-256", data))
        | st.just(initial(b"SCRAM-SHA-256", GOOD)),
        min_size=1,
        max_size=3,
    ),
)
def test_garbage_never_gets_in_and_never_breaks(
    auth_type: str, stored: str, known: bool, bodies: list[bytes]
) -> None:
    talk = exchange(auth_type, Asking("app", known, stored))
    talk.start()
    with contextlib.suppress(InvalidPassword, ProtocolViolation):
        for body in bodies:
            assert talk.is_slow() in (True, False)
            assert not talk.respond(body).done


# --- slow and fast ----------------------------------------------------------------------------------------


def test_only_the_first_derivation_is_slow() -> None:
    asking = Asking("somebody", True, "a password that was never used before")
    talk = Sasl(asking)
    talk.start()
    assert talk.is_slow()
    talk.respond(initial(b"SCRAM-SHA-256", GOOD))
    assert not talk.is_slow()
    assert not Sasl(asking).is_slow()
    assert not Sasl(Asking("app", True, SCRAM)).is_slow()
    assert not Sasl(Asking("app", False, "")).is_slow()
    assert Plain(asking).is_slow()
    assert not Md5(asking).is_slow()


# --- trust and cert ---------------------------------------------------------------------------------------


def test_trust_lets_in_who_is_known() -> None:
    step = exchange("trust", Asking("app", True, "")).start()
    assert step.done
    assert step.send == encode.AUTHENTICATION_OK
    with pytest.raises(NotAuthorized, match='role "app" does not exist'):
        exchange("trust", Asking("app", False, "")).start()


def test_cert_wants_the_name_of_the_user_exactly() -> None:
    assert exchange("cert", Asking("äpp", True, "", certificate_name="äpp")).start().done
    for name in ("", "app2", "ap", "APP", "app\0"):
        with pytest.raises(NotAuthorized, match="certificate authentication failed"):
            exchange("cert", Asking("app", True, "", certificate_name=name)).start()
    with pytest.raises(NotAuthorized):
        exchange("cert", Asking("app", False, "", certificate_name="app")).start()


def test_a_secret_is_in_no_representation() -> None:
    assert "hush" not in repr(Asking("app", True, "hush"))


def test_the_table_has_what_the_configuration_may_say() -> None:
    assert set(METHODS) == {"scram-sha-256", "md5", "plain", "trust", "cert"}
