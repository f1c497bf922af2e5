"""PostgreSQL's own regression scripts, direct and through the proxy: do both say the same?

    python -m tests.suites.regress SOURCE [--bin DIR] [--mode transaction] [--only NAME,...] [--out DIR]

SOURCE is `src/test/regress` of PostgreSQL's source. Each of the two runs has a fresh server of its own, where
psql runs the scripts of `parallel_schedule` one after the other just as pg_regress runs them; the proxy lends another
server connection for every transaction (see `moving`). The outputs are compared with each other, not with
`expected`: what is wanted is that the proxy makes no difference.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

from tests.suites.servers import Programs, proxied

TIMEOUT = 180.0  # seconds a script
# As pg_regress sets them.
ENVIRONMENT = {
    "PGTZ": "America/Los_Angeles",
    "PGDATESTYLE": "Postgres, MDY",
    "PGOPTIONS": "-c intervalstyle=postgres_verbose",
    "LANG": "C",
    "LC_MESSAGES": "C",
    "PG_DLSUFFIX": ".so",
}
# Once on the database, instead of a configuration file.
DATABASE = (
    "CREATE DATABASE regression TEMPLATE template0",
    "ALTER DATABASE regression SET lc_messages TO 'C'",
    "ALTER DATABASE regression SET lc_monetary TO 'C'",
    "ALTER DATABASE regression SET lc_numeric TO 'C'",
    "ALTER DATABASE regression SET lc_time TO 'C'",
    "ALTER DATABASE regression SET bytea_output TO 'hex'",
    "ALTER DATABASE regression SET timezone_abbreviations TO 'Default'",
)
# What differs from one run to the next, direct as well.
_VARYING = (
    (re.compile(r"\bpg_temp_\d+"), "pg_temp_N"),
    (re.compile(r"\bpg_toast_\d+"), "pg_toast_N"),
    (re.compile(r"\bPID \d+"), "PID N"),
    (re.compile(r"(actual time=|Time: |Execution Time: |Planning Time: )[\d.]+(\.\.[\d.]+)?"), r"\1N"),
)


def scripts(source: Path) -> list[str]:
    names = []
    for line in (source / "parallel_schedule").read_text().splitlines():
        if line.startswith("test:"):
            names += line.removeprefix("test:").split()
    return names


class Bench:
    """The source, and the programs of the server's version; regress.so is made of the source."""

    def __init__(self, source: Path, programs: Programs, out: Path) -> None:
        self.source, self.programs, self.out = source.absolute(), programs, out.absolute()
        self.library = self.out / "lib"
        self.library.mkdir(parents=True, exist_ok=True)
        general = programs.ask("--includedir")
        headers = [programs.ask("--includedir-server"), f"{general}/internal", general, str(self.source)]
        made = ["-o", str(self.library / "regress.so"), str(self.source / "regress.c")]
        command = ["cc", "-O1", "-fPIC", "-shared", *(f"-I{path}" for path in headers), *made]
        subprocess.run(command, check=True)
        for name in ("refint.so", "autoinc.so"):
            shutil.copy(Path(programs.ask("--pkglibdir")) / name, self.library)

    def server(self) -> AbstractContextManager[int]:
        return self.programs.server(DATABASE, {"max_prepared_transactions": "2"}, "--no-locale")

    def script(self, name: str, port: int, results: Path) -> tuple[float, str]:
        """Runs one; how long it took, and what went wrong besides what psql says."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
        environment = {
            **kept,
            **ENVIRONMENT,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "postgres",
            "PGAPPNAME": f"pg_regress/{name}",
            "PG_ABS_SRCDIR": str(self.source),
            "PG_ABS_BUILDDIR": str(results),
            "PG_LIBDIR": str(self.library),
        }
        command = [self.programs.directory / "psql", "-X", "-a", "-q", "-d", "regression"]
        command += ["-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on"]
        began = time.monotonic()
        with (
            (self.source / "sql" / f"{name}.sql").open() as script,
            (results / f"{name}.out").open("w") as out,
        ):
            try:
                done = subprocess.run(
                    command, stdin=script, stdout=out, stderr=subprocess.STDOUT, env=environment,
                    cwd=self.source, timeout=TIMEOUT, check=False,
                )  # fmt: skip
                said = f"exit {done.returncode}" if done.returncode else ""
            except subprocess.TimeoutExpired:
                said = "hangs"
        return time.monotonic() - began, said


def comparable(text: str, results: Path) -> list[str]:
    text = text.replace(str(results), "BUILDDIR")
    for pattern, instead in _VARYING:
        text = pattern.sub(instead, text)
    return text.splitlines()


def run(bench: Bench, names: list[str], port: int, results: Path) -> dict[str, tuple[float, str]]:
    results.mkdir(parents=True, exist_ok=True)
    (results / "results").mkdir(exist_ok=True)
    for each in (results, results / "results"):
        each.chmod(0o777)
    outcome = {}
    for name in names:
        outcome[name] = bench.script(name, port, results)
        print(".", end="", flush=True)
    print()
    return outcome


def report(
    bench: Bench, names: list[str], ways: list[str], outcomes: list[dict[str, tuple[float, str]]]
) -> int:
    """Writes the differences of the second run from the first; how many scripts differ."""
    first, second = (bench.out / way for way in ways)
    differing = 0
    for name in names:
        texts = [
            comparable((way / f"{name}.out").read_text(errors="replace"), way) for way in (first, second)
        ]
        expected, found = (outcome[name][1] for outcome in outcomes)
        lines = list(difflib.unified_diff(*texts, *ways, lineterm="", n=4))
        target = bench.out / f"{name}.diff"
        target.unlink(missing_ok=True)
        if lines or expected != found:
            differing += 1
            target.write_text("\n".join(lines) + "\n")
            print(f"{name}: {len(lines)} lines of difference {expected!r} {found!r}")
    print(f"{len(names)} scripts, {len(names) - differing} the same, {differing} differ")
    seconds = [sum(took for took, _ in outcome.values()) for outcome in outcomes]
    print(f"seconds: {ways[0]} {seconds[0]:.0f}, {ways[1]} {seconds[1]:.0f}")
    return differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--bin", type=Path, default=Path("/usr/lib/postgresql/15/bin"))
    parser.add_argument("--mode", default="transaction", help="transaction, session, or direct (twice)")
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=Path("build/regress"))
    parser.add_argument("--keep-direct", action="store_true", help="compare with the direct run of before")
    arguments = parser.parse_args()
    bench = Bench(arguments.source, Programs(arguments.bin), arguments.out)
    names = scripts(bench.source)
    if arguments.only:
        wanted = {"test_setup", *arguments.only.split(",")}
        names = [name for name in names if name in wanted]
    way = arguments.mode if arguments.mode != "direct" else "again"
    outcomes = []
    if arguments.keep_direct:
        outcomes.append(dict.fromkeys(names, (0.0, "")))
    else:
        with bench.server() as server:
            outcomes.append(run(bench, names, server, bench.out / "direct"))
    with bench.server() as server:
        if way == "again":
            outcomes.append(run(bench, names, server, bench.out / way))
        else:
            with proxied(server, way, bench.out / f"{way}.log") as port:
                outcomes.append(run(bench, names, port, bench.out / way))
    return 1 if report(bench, names, ["direct", way], outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
