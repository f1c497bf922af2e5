"""A text as a server reads it whose standard_conforming_strings is off.

There a backslash before a quote keeps an ordinary string open, and what our parser takes for the end of the
string is not: `'a\\'';SET x TO 1;--'` is one string for the one and a SET for the other. Any client can turn
the parameter off, so that a text with such a quote must be judged in both ways.
"""

from __future__ import annotations

import re

# No text is slow to match: quantifiers that could give back what they took are possessive, and what is not
# closed reaches to the end.
_BODY = rb"'(?:[^'\\]|\\(?:.|\Z)|'')*+(?:'|\Z)"
_BREAK = rb"(?:[ \t\f\v]|--[^\r\n]*+)*+[\r\n](?:\s|--[^\r\n]*+(?:[\r\n]|\Z))*+"
_STRING = rb"%s(?:%s%s)*+" % (_BODY, _BREAK, _BODY)
_TOKEN = re.compile(
    rb"(?P<plain>[nN]?%s)" % _STRING
    + rb"|[eE]%s" % _STRING
    + rb"|(?:[bBxX]|[uU]&)'[^']*+(?:'|\Z)"
    + rb"|\"[^\"]*+(?:\"|\Z)"
    + rb"|--[^\r\n]*+"
    + rb"|(?P<comment>/\*)"
    + rb"|\$(?P<tag>(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*+)?)\$"
    + rb"|[A-Za-z_\x80-\xff][\w$\x80-\xff]*+",
    re.DOTALL,
)
_COMMENT_MARK = re.compile(rb"/\*|\*/")
# In client encodings such as GBK the backslash may be the second byte of a character, or not.
_doubtful = re.compile(rb"[\x80-\xff]\\+'").search


def doubtful(text: bytes) -> bool:
    """What the text means depends on the client's encoding."""
    return b"\\'" in text and _doubtful(text) is not None


def reread(text: bytes) -> bytes:
    """The text with every ordinary string as one with escapes; `text` itself if that changes nothing."""
    if b"\\'" not in text:
        return text
    out: list[bytes] = []
    done = at = 0
    while found := _TOKEN.search(text, at):
        at = found.end()
        if found.group("plain"):
            out.append(text[done : found.start()])
            out.append(b" E")
            done = text.index(b"'", found.start())
        elif found.group("comment"):
            at = _comment_end(text, at)
        elif found.group("tag") is not None:
            end = text.find(found.group(), at)
            at = len(text) if end < 0 else end + len(found.group())
    if not out:
        return text
    out.append(text[done:])
    return b"".join(out)


def _comment_end(text: bytes, at: int) -> int:
    depth = 1
    for mark in _COMMENT_MARK.finditer(text, at):
        depth += 1 if mark.group() == b"/*" else -1
        if not depth:
            return mark.end()
    return len(text)
