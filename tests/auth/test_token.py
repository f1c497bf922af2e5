"""Tokens are told from one another by their hash, and nothing else passes for one."""

from __future__ import annotations

from proxy.auth import token
from proxy.model import ApiRole, ApiToken


def test_a_token_is_found_by_what_is_kept_of_it() -> None:
    made = [token.new() for _ in range(3)]
    known = [ApiToken(str(n), token.hashed(t), ApiRole.VIEWER) for n, t in enumerate(made)]
    assert [getattr(token.owner(t, known), "name", None) for t in made] == ["0", "1", "2"]
    assert all(token.is_hash(t.hash) for t in known)
    assert not any(t in repr(known) or token.hashed(t) in repr(known) for t in made)


def test_nothing_else_is_one() -> None:
    known = [ApiToken("one", token.hashed(""), ApiRole.ADMIN)]
    assert token.owner("", known) is None
    assert token.owner(known[0].hash, known) is None
    assert token.owner("x", ()) is None


def test_the_header() -> None:
    assert token.bearer("Bearer abc") == token.bearer("bearer  abc ") == "abc"
    assert (
        token.bearer("Basic abc") == token.bearer("") == token.bearer("Bearer") == token.bearer("abc") == ""
    )


def test_what_a_hash_is() -> None:
    good = token.hashed("x")
    assert token.is_hash(good)
    assert not any(token.is_hash(bad) for bad in (good[:-1], good + "0", good.upper(), "md5$" + good[7:], ""))
