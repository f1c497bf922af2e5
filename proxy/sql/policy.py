"""What SQL one tenant may send: the rules of its tier and its own, asked of each text.

A byte search comes first, so that most texts are not parsed for the rules' sake. A text that no parser takes is
passed on, for the server to say what is wrong with it, unless it may be one that a newer server takes and by its
words it breaks a rule; one that is too long to be parsed is refused where a rule would have to read it.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from proxy.errors import ParameterLocked, StatementRefused, TiergateError
from proxy.model import NO_POLICY, SqlPolicy, Tenant, Tier
from proxy.sql.constants import guc, says_true
from proxy.sql.findings import ALL
from proxy.sql.measure import READ_ONLY, Measure, Measures, joins_at_most, measure
from proxy.sql.verdict import MAX_KEPT, MAX_KEPT_BYTES, MAX_PARSE, PLAIN, Verdict
from proxy.sql.vocabulary import finder, has_body, search_for, words_of
from proxy.sql.words import body_sets

# A text without any of these reads only, and opens no transaction READ WRITE. U&"" can spell set_config.
_may_write = search_for((
    "insert", "update", "delete", "merge", "into", "copy", "create", "alter", "drop", "truncate", "do", "call", "grant",
    "revoke", "comment", "security", "vacuum", "analy[sz]e", "cluster", "reindex", "refresh", "checkpoint", "load",
    "import", "reassign", "write", "transaction_read_only", "default_transaction_read_only", "set_config", "u&",
))  # fmt: skip
_may_open = re.compile(rb"\bwrite\b|transaction_read_only").search
_ENDS = b";"


class Rules:
    """Rules of one tenant, or of all of a tier that have none of their own."""

    def __init__(self, tier: Tier, tenant: Tenant | None) -> None:
        """`said`: (rule, its value in words, who says it) of each rule there is."""
        self._names = (f'tier "{tier.name}"', f'tenant "{tenant.name}"' if tenant is not None else "")
        self._own = tenant.policy if tenant is not None else NO_POLICY
        self.policy = policy = self._own.over(tier.policy)
        self.read_only = bool(policy.read_only)
        self.locked = (policy.locked_parameters or frozenset()) | (
            READ_ONLY if self.read_only else frozenset()
        )
        self._max_joins = policy.max_joins or 0
        self._max_statements = policy.max_statements or 0
        self._max_size = policy.max_statement_size or 0
        self._forbidden = policy.forbidden_statements or frozenset()
        self._find = finder(self._forbidden)
        self._words = words_of(self._forbidden)
        self.said = self._say(policy)
        # It may say READ ONLY itself.
        self._by_value = READ_ONLY - (policy.locked_parameters or frozenset())
        self._last_parts = [
            name.rpartition(".")[2].encode("utf-8", "surrogateescape") for name in self.locked
        ]

    @classmethod
    def of(cls, tier: Tier, tenant: Tenant | None = None) -> Rules | None:
        """None where there are no rules."""
        rules = cls(tier, tenant)
        return rules if rules.said else None

    def _say(self, policy: SqlPolicy) -> list[tuple[str, str, str]]:
        found = [
            ("max_joins", str(self._max_joins or "")),
            ("max_statements", str(self._max_statements or "")),
            ("max_statement_size", str(self._max_size or "")),
            ("read_only", "true" if self.read_only else ""),
            ("forbidden_statements", ", ".join(sorted(self._forbidden))),
            ("locked_parameters", ", ".join(sorted(policy.locked_parameters or ()))),
        ]
        return [(rule, value, self._who(rule)) for rule, value in found if value]

    def __str__(self) -> str:
        return "; ".join(f"{rule} = {value}" for rule, value, _ in self.said)

    def _who(self, rule: str) -> str:
        return self._names[getattr(self._own, rule) is not None]

    # --- texts ----------------------------------------------------------------------------------

    def judge(self, text: bytes, verdict: Verdict, measures: Measures) -> TiergateError | None:
        """What is said of the text, whose verdict is `verdict`; None: it may pass."""
        if self._max_size and len(text) > self._max_size:
            return self._too_long(len(text))
        if self.locked and verdict is not PLAIN:
            refused = self._change(verdict) or self._hidden_change(measures.measure(text))
            if refused is not None:
                return refused
        low = text.lower()
        suspect = self._suspicion(low)
        if not suspect:
            return None
        found = measures.measure(text)
        if found.unread == "size":
            return StatementRefused(
                f"the statement is too long to be inspected for {suspect} of {self._who(suspect)}",
                detail=f"It has {len(text)} bytes.",
                hint="Send it in smaller pieces, or the values as parameters.",
            )
        return self._measured(low, found)

    def block_refusal(self, texts: bytes) -> TiergateError | None:
        """What is said of texts that begin a transaction block."""
        if self.read_only and _may_open(texts.lower()) and measure(texts).opens:
            return self._read_only()
        return None

    def _read_only(self) -> TiergateError:
        return StatementRefused(f"transactions of {self._who('read_only')} are read-only (read_only)")

    def long_refusal(self, size: int) -> TiergateError | None:
        """What is said of a text that is not held here whole: whatever is to be known of it cannot be."""
        if self._max_size and size > self._max_size:
            return self._too_long(size)
        rules = [rule for rule, _, _ in self.said if rule != "max_statement_size"]
        if not rules:
            return None
        return StatementRefused(
            f"a statement of {size} bytes is too long to be inspected for {rules[0]} of {self._who(rules[0])}",
            hint="Send it in smaller pieces, or the values as parameters.",
        )

    def _too_long(self, size: int) -> TiergateError:
        rule = "max_statement_size"
        return StatementRefused(
            f"the statement has {size} bytes; {self._who(rule)} allows {self._max_size} ({rule})"
        )

    def _suspicion(self, low: bytes) -> str:
        """A rule that the lowercased text may break; "": it breaks none of those that read the text."""
        if self._max_joins and joins_at_most(low) > self._max_joins:
            return "max_joins"
        if self._max_statements and low.count(_ENDS) >= self._max_statements:
            return "max_statements"
        # Where it cannot be parsed anyway, only words that are all there are a reason to refuse it.
        if (
            self._forbidden
            and self._find(low)
            and (len(low) <= MAX_PARSE or self._words.found(low) or has_body(low))
        ):
            return "forbidden_statements"
        if self.read_only and _may_write(low):
            return "read_only"
        return ""

    def _measured(self, low: bytes, found: Measure) -> TiergateError | None:
        """`found` may be of one way to read the text, while the other is no SQL: then its words count as well."""
        unread = bool(found.unread)
        if self._max_statements and found.statements > self._max_statements:
            return StatementRefused(
                f"the text has {found.statements} statements; {self._who('max_statements')} allows"
                f" {self._max_statements} (max_statements)"
            )
        if self._max_joins and found.joins > self._max_joins:
            return StatementRefused(
                f"the statement has {found.joins} joins; {self._who('max_joins')} allows"
                f" {self._max_joins} (max_joins)"
            )
        if self._forbidden:
            name = min(found.names & self._forbidden, default="", key=_closeness)
            name = name or (self._words.found(low) if unread else "")
            where = ""
            if not name and found.bodies:
                name, where = self._words.found(found.bodies), " within a function or block"
            if name:
                return StatementRefused(
                    f"{name.upper()}{where} is forbidden for {self._who('forbidden_statements')}"
                    " (forbidden_statements)"
                )
        if self.read_only:
            if found.opens or (unread and _may_open(low)):
                return self._read_only()
            if found.writes:
                return StatementRefused(
                    f"{found.writes.upper()} is no reading statement; {self._who('read_only')} is read-only"
                    " (read_only)"
                )
        return None

    # --- parameters -----------------------------------------------------------------------------

    def _change(self, verdict: Verdict) -> TiergateError | None:
        if verdict.unread:
            for name, part in zip(self.locked, self._last_parts, strict=True):
                if part in verdict.unread and name not in self._by_value:
                    return self.locked_error(name)
            if b"reset" in verdict.unread or b"discard" in verdict.unread:
                return ParameterLocked(
                    "a statement that cannot be parsed and may reset parameters is not allowed",
                    hint=f"Parameters of {self._who_locks()} are locked.",
                )
        if verdict.hides is not None:
            return ParameterLocked(
                f"{verdict.hides.what} is not allowed: parameters of {self._who_locks()} are locked",
                hint=verdict.hides.hint,
            )
        # What those are set to only the tree says (see `Measure.opens`), which a FunctionCall does not have.
        changed = verdict.changed - self._by_value if verdict.statements else verdict.changed
        found = self.locked if ALL in changed else self.locked & changed
        return self.locked_error(min(found)) if found else None

    def _hidden_change(self, found: Measure) -> TiergateError | None:
        if found.bodies and body_sets(found.bodies):
            for name in sorted(self.locked):
                if name.encode("utf-8", "surrogateescape") in found.bodies:
                    return self.locked_error(name)
        # What a session gets back behind a text that resets it, the rest of that text would run without.
        early = found.resets_early
        name = ALL if ALL in early else min(early & self.locked, default="")
        if not name:
            return None
        what = "parameters" if name == ALL else f'parameter "{name}"'
        return ParameterLocked(
            f"{what} cannot be reset while statements follow: locked by {self._who_locks()}",
            hint="Send the RESET by itself, or as the last statement of the text.",
        )

    def locked_error(self, name: str) -> TiergateError:
        rule = "locked_parameters"
        if name not in (self.policy.locked_parameters or ()):
            rule = "read_only"
        return ParameterLocked(f'parameter "{name}" cannot be changed: locked by {self._who(rule)} ({rule})')

    def _who_locks(self) -> str:
        return self._who("locked_parameters" if self.policy.locked_parameters else "read_only")

    def asked_refusal(self, name: str, value: str, given: str | None) -> TiergateError | None:
        """What is said of a parameter in a client's startup packet; `given` is the value of the tier or tenant."""
        name = guc(name)
        if name not in self.locked or value == given or (name in self._by_value and says_true(value)):
            return None
        return self.locked_error(name)


def _closeness(name: str) -> tuple[int, str]:
    """The closest name of a statement says most."""
    return -name.count(" "), name


class Answers:
    """What rules say of texts, the last ones kept."""

    def __init__(self, max_entries: int = 4096) -> None:
        self._max_entries = max_entries
        self._measures = Measures()
        self._kept: OrderedDict[tuple[Rules, bytes], TiergateError | None] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def refusal(self, rules: Rules, text: bytes, verdict: Verdict) -> TiergateError | None:
        """What is said of the text, whose verdict is `verdict`; None: it may pass. Calls have no text."""
        kept = self._kept
        key = (rules, text)
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
        found = rules.judge(text, verdict, self._measures)
        if text and len(text) <= MAX_KEPT:
            kept[key] = found
            self._bytes += len(text)
            while len(kept) > self._max_entries or self._bytes > MAX_KEPT_BYTES:
                self._bytes -= len(kept.popitem(last=False)[0][1])
        return found
