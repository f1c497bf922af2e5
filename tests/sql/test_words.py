"""Texts in which there is nothing to do, as a byte search tells them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sql.tree import Unreadable, read
from proxy.sql.words import ends_block, says_nothing


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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"COMMIT", True), (b" rollback work ;", True), (b"END TRANSACTION;", True), (b"abort;;", True),
        (b"ROLLBACK TO a", False), (b"COMMIT AND CHAIN", False), (b"COMMIT PREPARED 'a'", False),
        (b"COMMIT; SELECT 1", False), (b"COMMITS", False), (b"ROLLBACKWORK", False),
        (b"", False), (b"SELECT 1", False), (b"COMMIT" + b" " * 64, False),
    ],
)  # fmt: skip
def test_the_end_of_a_block(text: bytes, found: bool) -> None:
    assert ends_block(b"Q" + text + b"\0", 1, 1 + len(text)) == found
