"""Reads TOML tables against schemas, collecting every problem instead of stopping at the first."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import Any

from proxy.settings.pgbouncer import INSTEAD
from proxy.settings.values import Kind

# A nested mapping is a table of its own.
Schema = Mapping[str, "Kind | Schema"]

_VARIABLE = re.compile(r"\$?\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def dotted(*names: str) -> str:
    """A full key as TOML writes it: `tenant.acme`, `tenant."a.b"`."""
    return ".".join(n if _BARE_KEY.fullmatch(n) else json.dumps(n, ensure_ascii=False) for n in names)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`; of `limits.max_qps` only the last part is compared."""
    best, likeness = "", -1.0
    for candidate in known:
        ratio = SequenceMatcher(None, name.lower(), candidate.rpartition(".")[2].lower()).ratio()
        if ratio > likeness:
            best, likeness = candidate, ratio
    return best


def suggestion(name: str, known: Iterable[str], *, of_pgbouncer: bool = False) -> str:
    """`of_pgbouncer`: it may be one of its keys or sections."""
    if of_pgbouncer and name in INSTEAD:
        return f", as PgBouncer has it; here {INSTEAD[name]}"
    best = nearest(name, known)
    return f'; the nearest known one is "{best}"' if best else ""


def shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


class Reader:
    """One file being read: where it is, the environment, the problems so far and the keys without effect."""

    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ
        self.problems: list[str] = []
        self.unused: dict[str, object] = {}
        self._refused: set[tuple[str, str]] = set()

    def problem(self, where: str, key: str, text: str) -> None:
        place = f"[{where}] {key}" if key else f"[{where}]"
        # A name may hold a line break; a problem is one line.
        self.problems.append(f"{self.path}: {place}: {text}".replace("\n", "\\n"))

    def missing(self, where: str, key: str, text: str, *others: str) -> None:
        """A problem, unless `key` or one of `others` is there and has been refused already."""
        if not self.refused(where, key, *others):
            self.problem(where, key, text)

    def refused(self, where: str, *keys: str) -> bool:
        return any((where, key) in self._refused for key in keys)

    def read(self, raw: object, schema: Schema, where: str) -> dict[str, Any]:
        """The values that are right; the others have become problems."""
        said: dict[str, Any] = {}
        if not isinstance(raw, dict):
            self.problem(where, "", f"must be a table, not {shown(raw)}")
            return said
        for key, value in raw.items():
            kind = schema.get(key)
            if kind is None:
                near = suggestion(key, self._names(schema), of_pgbouncer=where == "proxy")
                self.problem(where, dotted(key), "unknown key" + near)
            elif isinstance(kind, Kind):
                self.value(said, key, kind, value, where)
            else:
                said[key] = self.read(value, kind, f"{where}.{key}")
        return said

    def value(self, said: dict[str, Any], key: str, kind: Kind, value: object, where: str) -> None:
        before = len(self.problems)
        meant = self.expand(value, where, key)
        if len(self.problems) > before:
            self._refused.add((where, key))
            return
        try:
            said[key] = kind.read(meant)
        except ValueError as error:
            if kind.secret:
                self.problem(where, key, f"must be {kind.says}")
            elif reason := str(error):
                self.problem(where, key, f"{reason}, in {shown(meant)}")
            else:
                self.problem(where, key, f"must be {kind.says}, not {shown(meant)}")
            self._refused.add((where, key))
            return
        if kind.kept:
            self.unused[f"{where}.{key}"] = value

    def expand(self, value: object, where: str, key: str) -> object:
        """`${NAME}` in any text is the environment's value; `$${NAME}` is the text `${NAME}` itself."""
        if isinstance(value, list):
            return [self.expand(item, where, key) for item in value]
        if isinstance(value, dict):
            return {name: self.expand(item, where, f"{key}.{name}") for name, item in value.items()}
        if not isinstance(value, str) or "${" not in value:
            return value

        def replace(match: re.Match[str]) -> str:
            if match[0].startswith("$$"):
                return match[0][1:]
            if match[1] not in self.environ:
                self.problem(where, key, f"the environment has no variable {match[1]}")
            return self.environ.get(match[1], "")

        return _VARIABLE.sub(replace, value)

    def secret(self, said: dict[str, Any], key: str, where: str) -> str:
        """The value of `key`, or the first line of the file that `key`_file names."""
        name: str = said.get(f"{key}_file", "")
        value: str = said.get(key, "")
        if not name:
            return value
        if value:
            self.problem(where, f"{key}_file", f"{key} is given as well; keep one of them")
        try:
            with open(self.absolute(name), encoding="utf-8") as file:
                value = file.readline().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            self.problem(where, f"{key}_file", f'cannot read "{name}": {reason}')
            return ""
        if not value:
            self.problem(where, f"{key}_file", f'the first line of "{name}" is empty')
        return value

    def absolute(self, name: str) -> str:
        """File names are relative to the configuration file, wherever the command was started."""
        return os.path.abspath(os.path.join(os.path.dirname(self.path), os.path.expanduser(name)))

    @staticmethod
    def _names(schema: Schema) -> Iterable[str]:
        for key, kind in schema.items():
            yield key
            if not isinstance(kind, Kind):
                yield from (f"{key}.{inner}" for inner in kind)
