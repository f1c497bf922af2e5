# cython: boundscheck=False, wraparound=False
# (every index below is checked where it is used)
"""The byte search before any parser: does a text hold a word that could matter beyond its transaction?

The searches run over lowercased bytes and know nothing of strings, comments or quotes, so that no way of
quoting escapes them; what they find is then read by the parser. Two kinds of words are looked for:

- verbs (SET, LISTEN, ...) only where a statement can begin: at the start, behind a `;` or behind a comment,
  so that the SET of an UPDATE costs nothing;
- names (set_config, pg_temp, ...) anywhere, and `U&"`, which can spell any of them otherwise.

Each alternative of `_anywhere` begins at the rarest letter of its word: the engine skips from one such letter
to the next, and that keeps the search near a microsecond. No pattern is quadratic in its input.

Where this module is compiled, one loop over the bytes comes first (`suspicious`): it knows only the first
letters of what the patterns look for, and most texts have none of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

Search = Callable[[bytes], object]

_VERBS = rb"(?:set|reset|listen|unlisten|prepare|execute|load|discard|deallocate|declare|create|alter|drop|do|explain)\b"
_NAMES = (
    rb"f(?<=set_conf)ig|v(?<=adv)isory_lock|&(?<=u&)\"|m(?<=\btem)p(?:orary)?\b|m(?<=pg_tem)p"
    rb"|g(?<=pg)_(?:settings|backup_start|start_backup|prepared_statement)|x(?<=query_to_x)ml|w(?<=ts_rew)rite"
    rb"|k(?<=dblink)_connect|_(?<=ts_)stat|_(?<=set_)limit|d(?<=setseed)"
)
_NUMBERS = rb"v(?<=currv)al|v(?<=lastv)al|v(?<=setv)al"

_first = re.compile(rb"\s*" + _VERBS).match
# Stops at a line comment too: what it may hide is for `_behind_comments`.
_anywhere = re.compile(rb";\s*%s|/(?<=\*/)\s*%s|-(?<=--)|%s|%s" % (_VERBS, _VERBS, _NAMES, _NUMBERS)).search
_behind_comments = re.compile(
    rb"[;/]\s*%s|[\r\n][ \t\f\v]*%s|%s|%s" % (_VERBS, _VERBS, _NAMES, _NUMBERS)
).search

_execute = re.compile(rb"\s*execute\s+([a-z_][a-z0-9_]*)\s*\(", re.IGNORECASE).match

_ends = re.compile(
    rb"\s*(?:commit|rollback|end|abort)(?:\s+(?:work|transaction))?[\s;]*", re.IGNORECASE
).fullmatch
_ENDS = frozenset(b"cCrReEaA \t\n\r\f\v")
_LONGEST_END = 64

_BEGIN = rb"(?:begin|start)\b"
_begin_first = re.compile(rb"\s*" + _BEGIN).match
_begin_later = re.compile(rb"[;/]\s*%s|[\r\n][ \t\f\v]*%s" % (_BEGIN, _BEGIN)).search

# In the body of a DO block a statement also begins behind some words of PL/pgSQL.
_INSIDE = rb"(?:\A|;|/|>|begin|then|else|loop)"  # old servers read `IF a=1THEN`
_SETTING = rb"(?:re)?set\b"
_KEEPING = rb"(?:listen|unlisten|prepare|load|discard|deallocate)\b"
# ALTER ROLE and ALTER DATABASE, also where something stands between the words, however long.
_ALTERING = rb"\balter(?:\s+(?:role|user|database)\b|\s*/\*|\s*--|\s{64})"
_HIDING = (
    rb"set_config|pg_settings|u&\"|query_to_xml|ts_rewrite|ts_stat|"
    + _ALTERING
    + rb"|\bexecute\b|\bdo\b(?!\s+(?:nothing|update)\b)"
)
_hiding = re.compile(_HIDING).search
_sets = re.compile(rb"(?<![a-z_])(?:re)?set(?![a-z0-9])|set_config").search
_body_sets = re.compile(rb"%s\s*%s|%s" % (_INSIDE, _SETTING, _HIDING)).search
_body_keeps = re.compile(rb"%s\s*%s|%s" % (_INSIDE, _KEEPING, _NAMES)).search
_line_sets = re.compile(rb"[\r\n][ \t\f\v]*" + _SETTING).search
_goes_back = re.compile(rb"rollback|abort").search
_releasing = re.compile(rb"unlisten|drop|discard|unlock|close|authorization").search
_line_keeps = re.compile(rb"[\r\n][ \t\f\v]*" + _KEEPING).search


_COMPILED = not __file__.endswith(".py")
_DO = int.from_bytes(b"do", "big")


def _marks() -> bytes:
    """For each byte: 0, or the number of the rule of `suspicious` that looks at it."""
    table = bytearray(256)
    for number, marks in enumerate(
        (b";", b"/", b"-", b"fF", b"vV", b"&", b"mM", b"gG", b"xX", b"wW", b"kK", b"_", b"dD"), 1
    ):
        for mark in marks:
            table[mark] = number
    return bytes(table)


_MARKS = _marks()


def _may_be_verb(text: bytes, at: int, stop: int) -> bool:
    """Behind spaces at `at` stands what may be a verb of ours."""
    while at < stop and (text[at] == 32 or 9 <= text[at] <= 13):
        at += 1
    if at + 2 > stop:
        return False
    key = (text[at] | 0x20) << 8 | (text[at + 1] | 0x20)
    if key == _DO:
        return True
    if at + 3 > stop:
        return False
    # "set", "res", "lis", "unl", "pre", "loa", "dis", "dea", "dec", "cre", "alt", "dro", "exp", "exe": numbers that stand
    # here are compared without being looked up.
    return (key << 8 | (text[at + 2] | 0x20)) in (
        0x736574, 0x726573, 0x6C6973, 0x756E6C, 0x707265, 0x6C6F61, 0x646973, 0x646561, 0x646563, 0x637265, 0x616C74,
        0x64726F, 0x657870, 0x657865,
    )  # fmt: skip


def _may_matter(rule: int, before: int, last: int, following: int) -> bool:
    """A letter that `rule` looks at stands behind these two, in small letters, and ahead of that one."""
    if rule == 2:  # */
        return last == 42
    if rule == 3:  # --
        return last == 45
    if rule == 4:  # set_c-on-f
        return before == 111 and last == 110
    if rule == 5:  # ad-v, curr-v, last-v, set-v
        return (
            (before == 97 and last == 100)
            or (before == 114 and last == 114)
            or (last == 116 and (before == 115 or before == 101))
        )
    if rule == 6:  # u&
        return last == 117
    if rule == 7:  # te-m
        return before == 116 and last == 101
    if rule == 8:  # p-g_
        return last == 112 and following == 95
    if rule == 9:  # query_to_-x
        return before == 111
    if rule == 10:  # ts_re-w
        return before == 114 and last == 101
    if rule == 11:  # dblin-k_
        return last == 110 and following == 95
    if rule == 12:  # ts-_, set-_l
        return (before == 116 and last == 115) or (
            before == 101 and last == 116 and (following | 0x20) == 108
        )
    return before == 101 and last == 101  # setsee-d


def suspicious(text: bytes) -> bool:
    """False only for a text that is plain: a cheap look ahead of the patterns, which say it exactly."""
    return _suspicious(text, 0, len(text))


def _suspicious(data: bytes, start: int, stop: int) -> bool:
    """The same of `data[start:stop]`."""
    text, marks = data, _MARKS  # as bytes in C
    if _may_be_verb(text, start, stop):
        return True
    for at in range(start, stop):
        rule = marks[text[at]]
        if rule:
            if rule == 1:
                if at + 2 < stop and _may_be_verb(text, at + 1, stop):
                    return True
                continue
            before = text[at - 2] | 0x20 if at > start + 1 else 0
            last = text[at - 1] | 0x20 if at > start else 0
            following = text[at + 1] if at + 1 < stop else 0
            if _may_matter(rule, before, last, following):
                return True
    return False


def surely_plain(data: bytes, start: int, stop: int) -> bool:
    """`data[start:stop]` is plain, as can be seen at once; False: nobody knows."""
    return _COMPILED and not _suspicious(data, start, stop)


def plain(text: bytes) -> bool:
    """Nothing in the text can outlive its transaction; False: the parser must look."""
    if _COMPILED and not suspicious(text):
        return True
    low = text.lower()
    if _first(low):
        return False
    found = _anywhere(low)
    if not found:
        return True
    return found.group() == b"-" and not _behind_comments(low)


def says_nothing(data: bytes, start: int, stop: int) -> bool:
    """In `data[start:stop]` are only spaces, semicolons and comments. Of most texts the first byte says that not."""
    at, depth = start, 0
    while at < stop:
        byte = data[at]
        following = data[at + 1] if at + 1 < stop else 0
        if byte == 47 and following == 42:  # /*
            depth += 1
            at += 2
        elif depth:
            ends = byte == 42 and following == 47
            depth -= ends
            at += 2 if ends else 1
        elif byte == 45 and following == 45:  # --
            while at < stop and data[at] != 10 and data[at] != 13:
                at += 1
        elif byte == 59 or byte == 32 or 9 <= byte <= 13:
            at += 1
        else:
            return False
    return not depth


def ends_block(data: bytes, start: int, stop: int) -> bool:
    """`data[start:stop]` ends a transaction block, and is nothing else, as most write that."""
    if not start < stop <= start + _LONGEST_END or data[start] not in _ENDS:
        return False
    return bool(_ends(data, start, stop))


def may_begin(text: bytes) -> bool:
    """The text may begin a transaction; False: it does not."""
    low = text.lower()
    return bool(_begin_first(low) or _begin_later(low))


def may_release(text: bytes) -> bool:
    """The text may take away what a session has left on its connection."""
    return bool(_releasing(text.lower()))


def looks(low: bytes) -> bool:
    """The lowercased text may name the view of prepared statements, or its function (as it stands, not by `U&"`)."""
    return b"pg_prepared_statement" in low


def asks_sequences(low: bytes) -> bool:
    """The lowercased text may ask for the last number of a sequence."""
    return b"currval" in low or b"lastval" in low


def executed(text: bytes) -> bytes:
    """The name in a text that is an EXECUTE and nothing else that could matter, whatever its arguments; b"" for others."""
    found = _execute(text)
    return found[1].lower() if found and plain(text[found.end() :]) else b""


def goes_back(low: bytes) -> bool:
    """The lowercased text may roll a transaction back."""
    return bool(_goes_back(low))


def hides_sets(low: bytes) -> bool:
    """The lowercased text may set a parameter under a name that does not stand in it."""
    return bool(_hiding(low))


@lru_cache(16)
def _joined(name: bytes) -> Search:
    return re.compile(rb'"?\s*\.\s*"?'.join(map(re.escape, name.split(b".")))).search


def sets(low: bytes, name: bytes) -> bool:
    """The lowercased text may hold a SET or RESET of whatever kind, and of the parameter of this name."""
    if not _sets(low):
        return False
    if b"/*" in low or b"--" in low:  # between the parts of the name may stand anything
        return all(part in low for part in name.split(b"."))
    return bool(_joined(name)(low))


def body_sets(low: bytes) -> bool:
    """The lowercased body of a DO block may set parameters."""
    return bool(_body_sets(low) or (b"--" in low and _line_sets(low)))


def body_keeps(low: bytes) -> bool:
    """The lowercased body of a DO block may leave something else in the session."""
    return bool(_body_keeps(low) or (b"--" in low and _line_keeps(low)))
