"""Answers to servers' authentication requests; servers that ask for nonsense or do not prove themselves."""

from __future__ import annotations

import contextlib
import hashlib
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.auth import scram
from proxy.auth.scram import ServerExchange
from proxy.auth.to_server import (
    CLEARTEXT,
    MD5,
    OK,
    SASL,
    SASL_CONTINUE,
    SASL_FINAL,
    NoPassword,
    ToServer,
    opens,
)
from proxy.errors import ServerProtocolError
from tests.examples import examples

MD5_HASH = "md5" + hashlib.md5(b"secretapp").hexdigest()
VERIFIER = scram.make_verifier("secret", b"salt and pepper!", 32)
MECHANISMS = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"
INITIAL = len(b"p....SCRAM-SHA-256\0....")


def proof(auth: ToServer, server: ServerExchange) -> bytes:
    first = server.first(auth.respond(SASL, MECHANISMS)[INITIAL:])
    return auth.respond(SASL_CONTINUE, first)[5:]


def test_scram_with_proof_of_both() -> None:
    auth, server = ToServer("app", "secret"), ServerExchange(VERIFIER)
    final = server.final(proof(auth, server))
    assert auth.respond(SASL_FINAL, final) == b""
    assert auth.respond(OK, b"") == b""


def verifier_text(made: scram.Verifier) -> str:
    salt, stored, server = (
        b64encode(part).decode() for part in (made.salt, made.stored_key, made.server_key)
    )
    return f"SCRAM-SHA-256${made.iterations}:{salt}${stored}:{server}"


def client_key() -> bytes:
    """As a proxy gets it from a client's proof."""
    client, proxy = ToServer("app", "secret"), ServerExchange(VERIFIER)
    proxy.final(proof(client, proxy))
    return proxy.client_key


@pytest.mark.parametrize("binding", [b"", b"of a certificate"])
def test_with_the_key_of_a_client_for_a_server_that_has_the_same_verifier(binding: bytes) -> None:
    auth = ToServer("app", verifier_text(VERIFIER), client_key(), binding)
    server = ServerExchange(VERIFIER, binding)
    initial = auth.respond(SASL, MECHANISMS)
    mechanism, _, rest = initial[5:].partition(b"\0")
    assert mechanism == (b"SCRAM-SHA-256-PLUS" if binding else b"SCRAM-SHA-256")
    first = server.first(rest[4:], plus=bool(binding))
    assert not auth.slow(SASL_CONTINUE, first)
    final = server.final(auth.respond(SASL_CONTINUE, first)[5:])
    assert auth.respond(SASL_FINAL, final) == b""
    assert auth.respond(OK, b"") == b""


def test_a_password_is_bound_to_the_channel_as_well_and_a_server_that_cannot_is_told() -> None:
    auth, server = (
        ToServer("app", "secret", binding=b"cert"),
        ServerExchange(VERIFIER, b"cert"),
    )
    first = server.first(auth.respond(SASL, MECHANISMS)[INITIAL + len("-PLUS") :], plus=True)
    assert server.final(auth.respond(SASL_CONTINUE, first)[5:])
    without = ToServer("app", "secret", binding=b"cert").respond(SASL, b"SCRAM-SHA-256\0\0")
    assert without[INITIAL:].startswith(b"y,,")


def test_another_salt_is_another_verifier_and_nothing_is_proved() -> None:
    other = ServerExchange(scram.make_verifier("secret", b"other salt", 32))
    auth = ToServer("app", verifier_text(VERIFIER), client_key())
    with pytest.raises(NoPassword, match="another verifier") as told:
        proof(auth, other)
    assert told.value.sqlstate == "28P01"


@pytest.mark.parametrize("key", [b"", b"x" * 32])
def test_a_verifier_without_its_key_opens_nothing(key: bytes) -> None:
    with pytest.raises(NoPassword):
        ToServer("app", verifier_text(VERIFIER), key).respond(SASL, MECHANISMS)


def test_whose_key_it_is() -> None:
    assert opens(client_key(), verifier_text(VERIFIER))
    assert not opens(b"x" * 32, verifier_text(VERIFIER))
    assert not opens(client_key(), "SCRAM-SHA-256$broken")
    assert not opens(client_key(), "secret")


def test_cleartext_and_md5() -> None:
    assert ToServer("app", "secret").respond(CLEARTEXT, b"") == b"p\0\0\0\x0bsecret\0"
    expected = b"md5" + hashlib.md5(MD5_HASH[3:].encode() + b"salt").hexdigest().encode() + b"\0"
    for password in ("secret", MD5_HASH):
        assert ToServer("app", password).respond(MD5, b"salt")[5:] == expected


def test_a_server_that_asks_for_nothing_gets_nothing() -> None:
    assert ToServer("app", "secret").respond(OK, b"") == b""
    assert ToServer("app", "").respond(OK, b"") == b""


def test_a_server_that_began_scram_must_prove_itself() -> None:
    auth = ToServer("app", "secret")
    auth.respond(SASL, MECHANISMS)
    with pytest.raises(ServerProtocolError):
        auth.respond(OK, b"")
    auth = ToServer("app", "secret")
    proof(auth, ServerExchange(VERIFIER))
    with pytest.raises(ServerProtocolError):
        auth.respond(OK, b"")


@pytest.mark.parametrize("said", [b"v=", b"e=other", b"", b"v=AAAA", b"\xff"])
def test_a_final_message_without_a_signature_is_no_proof(said: bytes) -> None:
    auth = ToServer("app", "secret")
    auth.respond(SASL, MECHANISMS)
    with pytest.raises(ServerProtocolError):  # not even asked for our proof
        auth.respond(SASL_FINAL, said)
    auth = ToServer("app", "secret")
    proof(auth, ServerExchange(VERIFIER))
    with pytest.raises(ServerProtocolError):
        auth.respond(SASL_FINAL, said)


@pytest.mark.parametrize("password", ["", "SCRAM-SHA-256$4096:AAAA$BBBB:CCCC", MD5_HASH])
def test_without_a_plain_password_the_operator_is_told(password: str) -> None:
    for code, data in ((CLEARTEXT, b""), (SASL, MECHANISMS)):
        with pytest.raises(NoPassword, match='for user "app"') as caught:
            ToServer("app", password).respond(code, data)
        assert caught.value.hint
        assert password not in caught.value.message or not password


@pytest.mark.parametrize("password", ["", "SCRAM-SHA-256$4096:AAAA$BBBB:CCCC"])
def test_md5_needs_a_password_or_its_hash(password: str) -> None:
    with pytest.raises(NoPassword):
        ToServer("app", password).respond(MD5, b"salt")


@pytest.mark.parametrize(
    ("code", "data"),
    [(2, b""), (7, b""), (9, b""), (99, b"x"), (SASL, b""), (SASL, b"SCRAM-SHA-256-PLUS\0\0"),
     (SASL_CONTINUE, b"r=x,s=AAAA,i=1"), (SASL_FINAL, b"v=AAAA"), (MD5, b""), (MD5, b"sal")],
)  # fmt: skip
def test_what_is_not_known_is_refused(code: int, data: bytes) -> None:
    with pytest.raises(ServerProtocolError) as caught:
        ToServer("app", "secret").respond(code, data)
    assert not isinstance(caught.value, NoPassword)


def test_only_a_new_derivation_is_slow() -> None:
    auth, server = ToServer("app", "never used before"), ServerExchange(VERIFIER)
    assert not auth.slow(SASL, MECHANISMS)
    first = server.first(auth.respond(SASL, MECHANISMS)[INITIAL:])
    assert auth.slow(SASL_CONTINUE, first)
    auth.respond(SASL_CONTINUE, first)
    assert not auth.slow(SASL_CONTINUE, first)
    assert not auth.slow(SASL_CONTINUE, b"nonsense")


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([OK, CLEARTEXT, MD5, SASL, SASL_CONTINUE, SASL_FINAL, 7]),
            st.binary(max_size=30) | st.just(MECHANISMS) | st.just(b"v=") | st.just(b"salt"),
        ),
        max_size=5,
    ),
    st.sampled_from(["", "secret", MD5_HASH]),
)
def test_only_server_errors_escape(requests: list[tuple[int, bytes]], password: str) -> None:
    auth = ToServer("app", password)
    began = False
    with contextlib.suppress(ServerProtocolError):
        for code, data in requests:
            auth.slow(code, data)
            auth.respond(code, data)
            began = began or code == SASL
            assert not (began and code == OK), "SCRAM ended without proof"
