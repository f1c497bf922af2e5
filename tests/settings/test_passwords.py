"""Hashes that are none are found, and nothing of a password is told."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from proxy.auth import scram
from proxy.errors import ConfigError
from proxy.settings import parse
from proxy.settings.passwords import malformed, useless, useless_for_server


def verifier(salt: bytes = b"0123456789abcdef", iterations: int | str = 4096, key: bytes = b"k" * 32) -> str:
    made = [base64.b64encode(part).decode() for part in (salt, b"s" * 32, key)]
    return f"SCRAM-SHA-256${iterations}:{made[0]}${made[1]}:{made[2]}"


MD5 = "md5" + hashlib.md5(b"secretapp", usedforsecurity=False).hexdigest()
GOOD = [
    "", "secret", "md5", "md5 is no hash, and this is a password", "md5decade", "scram-sha-256$", MD5, verifier(),
    verifier(iterations=100_000),
]  # fmt: skip
MALFORMED = [
    "SCRAM-SHA-256$", "SCRAM-SHA-256$4096", verifier()[:-1], verifier()[:-3] + "!!!", verifier(iterations=0),
    verifier(iterations="x"), verifier(iterations=10_000_000), verifier(salt=b""), verifier(key=b"short"),
    verifier() + "$x", verifier().replace(":", ";"), MD5[:-1], MD5 + "0", MD5.upper().replace("MD5", "md5"),
    MD5[:-1] + "g", MD5[:-1] + "\n",
]  # fmt: skip


@pytest.mark.parametrize("password", GOOD)
def test_what_is_right(password: str) -> None:
    assert malformed(password) == ""


@pytest.mark.parametrize("password", MALFORMED)
def test_what_is_none(password: str) -> None:
    said = malformed(password)
    assert said
    assert password.removeprefix("md5")[:8] not in said.replace("SCRAM-SHA-256", "")


def test_a_verifier_made_here_is_one() -> None:
    made = scram.make_verifier("secret")
    parts = [base64.b64encode(p).decode() for p in (made.salt, made.stored_key, made.server_key)]
    assert malformed(f"SCRAM-SHA-256${made.iterations}:{parts[0]}${parts[1]}:{parts[2]}") == ""


@pytest.mark.parametrize("auth_type", ["scram-sha-256", "md5", "plain", "trust"])
def test_scram_can_make_nothing_of_an_md5_hash(auth_type: str) -> None:
    assert bool(useless(MD5, auth_type)) == (auth_type == "scram-sha-256")
    assert not useless("secret", auth_type)
    assert not useless(verifier(), auth_type)


def test_a_verifier_opens_no_server() -> None:
    assert useless_for_server(verifier())
    assert not useless_for_server(MD5)
    assert not useless_for_server("secret")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[user.u]\npassword = "SCRAM-SHA-256$oops"', "[user.u] password: begins as"),
        (f'[user.u]\npassword = "{MD5}"', "[user.u] password: is an md5 hash"),
        (f'[user.u]\nauth_type = "md5"\npassword = "{MD5}0"', "[user.u] password: begins as"),
        (f'[user.u]\npassword = "x"\nserver_password = "{verifier()}"', "[user.u] server_password: is a verifier"),
        (f'[cluster.c]\nprimary = "h"\nuser = "u"\npassword = "{verifier()}"', "[cluster.c] password: is a verifier"),
    ],
)  # fmt: skip
def test_the_configuration_names_the_place(text: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.toml")
    (problem,) = caught.value.problems
    assert problem.startswith(f"f.toml: {place}")


def test_a_file_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("SCRAM-SHA-256$oops\n")
    with pytest.raises(ConfigError) as caught:
        parse('[user.u]\npassword_file = "secret"', str(tmp_path / "f.toml"))
    (problem,) = caught.value.problems
    assert "[user.u] password_file: begins as" in problem


def test_a_right_hash_is_taken() -> None:
    users = parse(f'[user.u]\npassword = "{verifier()}"', "f.toml").directory.users
    assert users["u"].password == verifier()
