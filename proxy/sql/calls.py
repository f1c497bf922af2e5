"""The verdict on a FunctionCall message, which names a function by its oid and not in a text.

The oids of PostgreSQL's own functions are the same on every server. Others have none that could be known: what they
do cannot be seen, as with a call in a text, and whether it is a function whose name would tell, neither.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.model import PinReason
from proxy.sql.constants import guc, says_true
from proxy.sql.findings import Findings
from proxy.sql.hidden import Hidden
from proxy.sql.verdict import PLAIN, Verdict

_SET_CONFIG = 2078
_OTHERS = 16_384  # from here on oids are given to what users create (FirstNormalObjectId)
_OF_OTHERS = Verdict(pins=frozenset({PinReason.UNINSPECTED}))
UNKNOWN = Verdict(pins=frozenset({PinReason.UNINSPECTED}), hides=Hidden.CALL)
_VERDICTS: dict[int, Verdict] = {
    # pg_advisory_lock, pg_try_advisory_lock, both also _shared, with one key or two
    **dict.fromkeys(
        (2880, 2881, 2882, 2883, 2886, 2887, 2888, 2889), Verdict(pins=frozenset({PinReason.ADVISORY_LOCK}))
    ),
    # query_to_xml, query_to_xmlschema, query_to_xml_and_xmlschema, ts_rewrite, ts_stat
    **dict.fromkeys((2924, 2927, 2930, 3685, 3689, 3690), UNKNOWN),
    **dict.fromkeys((1575, 2559), Verdict(asks_sequences=True)),  # currval, lastval
    **dict.fromkeys((1576, 1765), Verdict(sets_sequences=True)),  # setval
    1599: Verdict(pins=frozenset({PinReason.SET})),  # setseed
    2172: Verdict(pins=frozenset({PinReason.UNINSPECTED})),  # pg_backup_start
}


def judge_call(oid: int, arguments: Sequence[bytes | None]) -> Verdict:
    if oid != _SET_CONFIG:
        return _VERDICTS.get(oid, PLAIN) if oid < _OTHERS else _OF_OTHERS
    if len(arguments) != 3 or arguments[0] is None:
        return UNKNOWN
    name = guc(arguments[0].decode("utf-8", "surrogateescape"))
    local = arguments[2]
    if local is not None and (local == b"\1" or says_true(local.decode("latin-1"))):
        return Verdict(touched=frozenset({name}), changed=frozenset({name}))
    found = Findings()
    found.set(name)
    if name == "search_path" and b"pg_temp" in (arguments[1] or b""):
        found.pins.add(PinReason.TEMP_TABLE)
    return Verdict(
        pins=frozenset(found.pins),
        sets=tuple(found.sets),
        touched=frozenset(found.touched),
        changed=frozenset(found.changed),
    )
