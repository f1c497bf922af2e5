"""The byte search before any parser: does a text hold a word that could matter beyond its transaction?

The searches run over lowercased bytes and know nothing of strings, comments or quotes, so that no way of
quoting escapes them; what they find is then read by the parser. Two kinds of words are looked for:

- verbs (SET, LISTEN, ...) only where a statement can begin: at the start, behind a `;` or behind a comment,
  so that the SET of an UPDATE costs nothing;
- names (set_config, pg_temp, ...) anywhere, and `U&"`, which can spell any of them otherwise.

Each alternative of `_anywhere` begins at the rarest letter of its word: the engine skips from one such letter
to the next, and that keeps the search near a microsecond. No pattern is quadratic in its input.
"""

from __future__ import annotations

import re

_VERBS = (
    rb"(?:set|reset|listen|unlisten|prepare|load|discard|deallocate|declare|create|alter|drop|do|explain)\b"
)
_NAMES = (
    rb"f(?<=set_conf)ig|v(?<=adv)isory_lock|&(?<=u&)\"|m(?<=\btem)p(?:orary)?\b|m(?<=pg_tem)p"
    rb"|g(?<=pg)_(?:settings|backup_start|start_backup)|x(?<=query_to_x)ml|w(?<=ts_rew)rite"
    rb"|k(?<=dblink)_connect|_(?<=ts_)stat|d(?<=setseed)"
)

_first = re.compile(rb"\s*" + _VERBS).match
# Stops at a line comment too: what it may hide is for `_behind_comments`.
_anywhere = re.compile(rb";\s*%s|/(?<=\*/)\s*%s|-(?<=--)|%s" % (_VERBS, _VERBS, _NAMES)).search
_behind_comments = re.compile(rb"[;/]\s*%s|[\r\n][ \t\f\v]*%s|%s" % (_VERBS, _VERBS, _NAMES)).search

_BEGIN = rb"(?:begin|start)\b"
_begin_first = re.compile(rb"\s*" + _BEGIN).match
_begin_later = re.compile(rb"[;/]\s*%s|[\r\n][ \t\f\v]*%s" % (_BEGIN, _BEGIN)).search

# In the body of a DO block a statement also begins behind some words of PL/pgSQL.
_INSIDE = rb"(?:\A|;|/|>|\b(?:begin|then|else|loop))"
_SETTING = rb"(?:re)?set\b"
_KEEPING = rb"(?:listen|unlisten|prepare|load|discard|deallocate)\b"
_HIDING = (
    rb"set_config|pg_settings|u&\"|query_to_xml|ts_rewrite|ts_stat"
    rb"|\bexecute\b|\bdo\b(?!\s+(?:nothing|update)\b)"
)
_hiding = re.compile(_HIDING).search
_body_sets = re.compile(rb"%s\s*%s|%s" % (_INSIDE, _SETTING, _HIDING)).search
_body_keeps = re.compile(rb"%s\s*%s|%s" % (_INSIDE, _KEEPING, _NAMES)).search
_line_sets = re.compile(rb"[\r\n][ \t\f\v]*" + _SETTING).search
_line_keeps = re.compile(rb"[\r\n][ \t\f\v]*" + _KEEPING).search


def plain(text: bytes) -> bool:
    """Nothing in the text can outlive its transaction; False: the parser must look."""
    low = text.lower()
    if _first(low):
        return False
    found = _anywhere(low)
    if not found:
        return True
    return found.group() == b"-" and not _behind_comments(low)


def may_begin(text: bytes) -> bool:
    """The text may begin a transaction; False: it does not."""
    low = text.lower()
    return bool(_begin_first(low) or _begin_later(low))


def hides_sets(low: bytes) -> bool:
    """The lowercased text may set a parameter under a name that does not stand in it."""
    return bool(_hiding(low))


def body_sets(low: bytes) -> bool:
    """The lowercased body of a DO block may set parameters."""
    return bool(_body_sets(low) or (b"--" in low and _line_sets(low)))


def body_keeps(low: bytes) -> bool:
    """The lowercased body of a DO block may leave something else in the session."""
    return bool(_body_keeps(low) or (b"--" in low and _line_keeps(low)))
