from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sql.escapes import doubtful, reread


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (rb"'\''", rb" E'\''"),
        (rb"N'\'' n'a'", rb" E'\''  E'a'"),
        (b"'a'\n'\\''", b" E'a'\n'\\''"),
        (b"'a' -- c\n\n -- d\r 'b\\''", b" E'a' -- c\n\n -- d\r 'b\\''"),
        (b"'a' 'b\\''", b" E'a'  E'b\\''"),
        (rb"e'\'' 'b'", rb"e'\''  E'b'"),
        (rb"b'1\' 'b'", rb"b'1\'  E'b'"),
        (rb"""U&'\' "'" 'b'""", rb"""U&'\' "'"  E'b'"""),
        (rb"$$'\'$$ $a$'$$'$a$ 'b'", rb"$$'\'$$ $a$'$$'$a$  E'b'"),
        (rb"a$b$'\''", rb"a$b$ E'\''"),
        (rb"/* '\' /* */ ' */ 'b'", rb"/* '\' /* */ ' */  E'b'"),
        (b"-- '\\'\n'b'", b"-- '\\'\n E'b'"),
        (rb"'open\'", rb" E'open\'"),
    ],
)
def test_ordinary_strings_get_escapes(text, other):
    assert reread(text) == other


@pytest.mark.parametrize("text", [b"'a'", rb"'a\b'", rb"E'\''", b"SELECT 1", rb"/* \' 'a'", rb"$$ \' 'a'"])
def test_what_means_the_same_is_the_same_object(text):
    assert reread(text) is text


@given(st.text(alphabet="'\"\\$aeEbnNuU&-/*\n \r1;", max_size=60).map(str.encode))
def test_only_string_openers_are_rewritten(text):
    other = reread(text)
    squeezed = other.replace(b" E'", b"'").replace(b" ", b"").lower()
    assert squeezed.replace(b"n'", b"'") == text.replace(b" E'", b"'").replace(b" ", b"").lower().replace(
        b"n'", b"'"
    )


@pytest.mark.parametrize(
    ("text", "yes"),
    [(b"E'\x83\\'", True), (b"E'\x83\\\\'", True), (b"'\x83' E'\\'", False), (b"E'\x83\\x'", False)],
)
def test_doubtful(text, yes):
    assert doubtful(text) is yes


@pytest.mark.parametrize(
    "part",
    [
        b"\\'",
        b"'\\",
        b"'",
        b"'a'\n",
        b"'' -- \n",
        b"b'",
        b'"',
        b"$a$",
        b"$a",
        b"/*",
        b"--",
        b"'a\\' ",
        b"u&'",
    ],
)
def test_no_text_is_slow(part):
    """Quadratic matching of this much would run into the suite's time limit."""
    text = b"SELECT \\'" + part * (2_000_000 // len(part)) + b"\\"
    assert len(reread(text)) >= len(text) - len(part)
