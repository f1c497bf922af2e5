"""Texts in which there is nothing to do, as a byte search tells them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sql.tree import Unreadable, read
from proxy.sql.words import says_nothing


@pytest.mark.parametrize(
    "text",
    [
        b"", b";", b" ;; \n", b"-- ping", b"--", b"-- one\n-- two\r; /* three */", b"/* a /* b */ c */", b"/**/", b"/***/",
        b"/* -- */;", b"-- /*\n",
    ],
)  # fmt: skip
def test_nothing(text: bytes) -> None:
    assert says_nothing(text, 0, len(text))
    assert says_nothing(b"Q" + text + b"SELECT 1", 1, 1 + len(text)), "of a piece"


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT 1", b"-", b"/", b"- -", b"-- a\nSELECT 1", b"/* a */ SELECT 1", b"/* open", b"/* /* */", b"/*/", b"*/",
        b";\0", b"\xa0", b"; x",
    ],
)  # fmt: skip
def test_something(text: bytes) -> None:
    assert not says_nothing(text, 0, len(text))


@given(
    st.lists(st.sampled_from(["-- x", "--", "/*", "*/", "/", "*", ";", "\n", "\r", " ", "\t", "a"])).map(
        "".join
    )
)
def test_as_the_parser_says(text: str) -> None:
    try:
        statements = read(text.encode()).statements
    except Unreadable:
        statements = 1
    assert says_nothing(text.encode(), 0, len(text)) == (statements == 0)
