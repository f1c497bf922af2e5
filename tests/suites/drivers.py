"""A driver's own test suite, direct and through the proxy: does every test end the same?

    python -m tests.suites.drivers [--bin DIR] [--mode transaction] [--users a,b] [--sql STATEMENT]... [--out DIR]
        [--cwd DIR] [--env NAME=VALUE]... -- COMMAND ...

COMMAND runs the suite and writes JUnit's XML to {junit} (pytest: `--junitxml={junit}`), or what `go test -json` says;
{host} and {port} in it and in the values of --env say where. Without --env it is told by PGHOST, PGPORT, PGUSER. Each
run has a fresh server.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from tests.suites.servers import Programs, proxied


def outcomes(junit: Path) -> dict[str, tuple[str, str]]:
    """By test: passed, failed, error or skipped, and its message."""
    if not junit.exists():
        return {}  # nothing was run; what the command said is beside it
    with junit.open(errors="replace") as file:
        return of_go(file) if file.read(1) == "{" else of_junit(junit)


def of_go(lines: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Of `go test -json`; a test that the program's end cut short has failed."""
    ends = {"pass": "passed", "fail": "failed", "skip": "skipped"}
    said: dict[str, str] = {}
    found: dict[str, tuple[str, str]] = {}
    for line in lines:
        try:
            event = json.loads(line if line.startswith("{") else "{" + line)
        except json.JSONDecodeError:  # what the program itself has printed
            continue
        if (name := event.get("Test")) is None:
            continue
        name = f"{event.get('Package', '')}::{name}"
        if event["Action"] == "output" and ".go:" in event["Output"]:
            said[name] = event["Output"].strip()
        found[name] = (ends.get(event["Action"], "failed"), said.get(name, ""))
    return found


def of_junit(junit: Path) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        outcome, message = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "failed" if child.tag == "failure" else child.tag
                message = (child.get("message") or "").splitlines()[0] if child.get("message") else ""
        if found.get(name, ("passed",))[0] in ("passed", "skipped"):  # a teardown may fail after it
            found[name] = (outcome, message)
    return found


def run(arguments: argparse.Namespace, port: int, way: str) -> dict[str, tuple[str, str]]:
    out: Path = arguments.out.absolute()
    junit = out / f"{way}.xml"
    junit.unlink(missing_ok=True)

    def filled(text: str) -> str:
        where = {"{host}": "127.0.0.1", "{port}": str(port), "{junit}": str(junit)}
        for placeholder, value in where.items():
            text = text.replace(placeholder, value)
        return text

    given = dict(filled(pair).split("=", 1) for pair in arguments.env)
    environment = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", **given}
    with (out / f"{way}.out").open("w") as said:
        subprocess.run(
            [filled(word) for word in arguments.command], cwd=arguments.cwd, env=environment,
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, check=False, timeout=arguments.timeout,
        )  # fmt: skip
    found = outcomes(junit)
    print(way, dict(Counter(outcome for outcome, _ in found.values())), flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=Path, default=Path("/usr/lib/postgresql/15/bin"))
    parser.add_argument("--mode", default="transaction", help="transaction, session, or direct (twice)")
    parser.add_argument("--users", default="postgres")
    parser.add_argument("--sql", action="append", default=[])
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--cwd", type=Path, default=Path())
    parser.add_argument("--out", type=Path, default=Path("build/drivers"))
    parser.add_argument("--timeout", type=float, default=3_600.0)
    parser.add_argument("--keep-direct", action="store_true", help="compare with the direct run of before")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    arguments.command = [word for word in arguments.command if word != "--"]
    arguments.out.mkdir(parents=True, exist_ok=True)
    programs = Programs(arguments.bin)
    way = arguments.mode if arguments.mode != "direct" else "again"
    if arguments.keep_direct:
        direct = outcomes(arguments.out / "direct.xml")
    else:
        with programs.server(arguments.sql, {}, "-E", "UTF8", "--locale=C.UTF-8") as server:
            direct = run(arguments, server, "direct")
    with programs.server(arguments.sql, {}, "-E", "UTF8", "--locale=C.UTF-8") as server:
        if way == "again":
            found = run(arguments, server, way)
        else:
            log = arguments.out.absolute() / f"{way}.log"
            with proxied(server, way, log, arguments.users) as port:
                found = run(arguments, port, way)
    none = ("not run", "")
    different = 0
    for name in dict.fromkeys([*direct, *found]):
        expected, other = direct.get(name, none), found.get(name, none)
        if expected[0] != other[0]:
            different += 1
            print(f"{name}: direct {expected[0]}, {way} {other[0]}: {(other[1] or expected[1])[:160]}")
    print(f"{len(direct)} tests, {len(direct) - different} the same, {different} differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
