"""The rules on SQL in a tier's or a tenant's table."""

from __future__ import annotations

from typing import Any

from proxy.model import NO_POLICY, SqlPolicy
from proxy.protocol import seal
from proxy.settings.keys import POLICY
from proxy.settings.reader import Reader, suggestion
from proxy.sql.vocabulary import STATEMENTS

# A BEGIN sets these as well, so that to lock them would not hold.
_OF_TRANSACTIONS = {
    "transaction_read_only": "read_only = true makes transactions read-only",
    "transaction_isolation": "it is said by each BEGIN",
    "transaction_deferrable": "it is said by each BEGIN",
}


def read_policy(reader: Reader, said: dict[str, Any], where: str, tenant_guc: str) -> SqlPolicy:
    """What the table `where` says of SQL; takes the keys out of `said`."""
    found = {key: said.pop(key) for key in POLICY if key in said}
    if not found:
        return NO_POLICY
    if "forbidden_statements" in found:
        names = [" ".join(name.lower().split()) for name in found["forbidden_statements"]]
        for name in names:
            if name not in STATEMENTS:
                text = f'no statement is called "{name}"' + suggestion(name, STATEMENTS)
                reader.problem(where, "forbidden_statements", text)
        found["forbidden_statements"] = frozenset(names)
    if "locked_parameters" in found:
        locked = frozenset(name.lower() for name in found["locked_parameters"])
        for name in sorted(locked):
            wrong = _OF_TRANSACTIONS.get(name, "")
            if name in (tenant_guc.lower(), seal.PARAMETER):
                wrong = "only the proxy sets it"
            if wrong:
                reader.problem(where, "locked_parameters", f"{name} cannot be locked; {wrong}")
        found["locked_parameters"] = locked
    return SqlPolicy(**found)
