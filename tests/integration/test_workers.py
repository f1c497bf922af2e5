"""Several workers behind one address: who gets the clients, what is seen and done, who dies, and an upgrade."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from proxy.cli.embedded import EmbeddedServer, free_port
from tests import rawclient
from tests.cli.running import COMMAND, ROOT, Ahead, Serve
from tests.integration.running import configuration, table
from tests.rawclient import Frame, RawClient, ServerError, sqlstates
from tests.waiting import wait_until

Rows = list[dict[str, str | None]]
WORKERS = 3


def text(shared: EmbeddedServer, **proxy: object) -> str:
    return configuration(
        {
            "cluster.shared": {"kind": "shared", "primary": f"127.0.0.1:{shared.port}"},
            "tenant.std_1": {"tier": "standard"},
            "tenant.std_2": {"tier": "standard"},
            "user.app": {"tenants": "*"},
            "user.admin": {},
        },
        **{
            "log_format": "json", "log_level": "info", "http_addr": f"127.0.0.1:{free_port()}", "workers": WORKERS,
            **proxy,
        },
    )  # fmt: skip


class Fleet:
    """`tiergate serve` with several workers, and clients that are closed with it."""

    def __init__(self, config: Path | Serve) -> None:
        self.serve = config if isinstance(config, Serve) else Serve(config)
        self._clients: list[RawClient] = []
        try:
            listening = self.serve.event("listening")
        except BaseException:
            self.serve.close()
            raise
        self.port, self.http_port = int(listening["port"]), int(listening["http_port"])

    def client(self, user: str = "app@std_1", database: str = "appdb") -> RawClient:
        client = RawClient(self.port)
        self._clients.append(client)
        return client.log_in(user, database, "")

    def raw(self, user: str) -> RawClient:
        """As one process alone calls it."""
        return self.client(user)

    def waiting_client(self) -> RawClient:
        """One whose login needs a server connection that it does not get yet."""
        client = RawClient(self.port)
        self._clients.append(client)
        client.send(rawclient.startup({"user": "app@std_1", "database": "appdb"}))
        assert client.read().kind == "R"
        return client

    def console(self, command: str) -> Rows:
        with RawClient(self.port) as client:
            client.log_in("admin", "tiergate", "")
            return table(client.checked(client.query(command)))

    def refused(self, command: str) -> str:
        with pytest.raises(ServerError) as error:
            self.console(command)
        return error.value.sqlstate

    def workers(self, state: str = "ready") -> dict[int, int]:
        """The pid of each worker in that state, by number."""
        rows = self.console("SHOW WORKERS")
        return {int(r["worker"] or 0): int(r["pid"] or 0) for r in rows if r["state"] == state}

    def worker_of(self, client: RawClient) -> int:
        port = str(client.sock.getsockname()[1])
        (worker,) = [row["worker"] for row in self.console("SHOW CLIENTS") if row["port"] == port]
        return int(worker or 0)

    def spread(self) -> dict[int, list[RawClient]]:
        """Clients by their worker, at least one of each."""
        by_worker: dict[int, list[RawClient]] = {}
        ready = self.workers()
        for _ in range(200):
            client = self.client()
            by_worker.setdefault(self.worker_of(client), []).append(client)
            if by_worker.keys() >= ready.keys():
                return by_worker
        raise AssertionError(f"200 clients and not one for each of {ready}: {by_worker}")

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        text = self.get("/metrics")[1]
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    def all_pids(self) -> set[int]:
        """The process and its children, whatever they are."""
        main = self.serve.process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        return {main, *map(int, children)}

    def close(self) -> None:
        for client in self._clients:
            client.close()
        pids = self.all_pids() if self.serve.process.poll() is None else set()
        if pids:
            self.serve.signal(signal.SIGINT)
            with contextlib.suppress(Exception):
                self.serve.wait()
        try:
            wait_until(lambda: not any(map(alive, pids)), what=f"the end of {pids}")
        finally:
            for pid in filter(alive, pids):
                os.kill(pid, signal.SIGKILL)
            self.serve.close()


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@contextlib.contextmanager
def running(config: Path, text: str) -> Iterator[Fleet]:
    config.write_text(text)
    fleet = Fleet(config)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def kept(shared: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One for all tests that leave it as it was."""
    with running(tmp_path_factory.mktemp("workers") / "tiergate.toml", text(shared)) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def ahead(
    request: pytest.FixtureRequest, shared: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ahead]:
    found = Ahead(request, tmp_path_factory, "fleet", lambda: text(shared, workers=2))
    yield found
    found.close()


@pytest.fixture
def fleet(ahead: Ahead) -> Iterator[Fleet]:
    fleet = Fleet(ahead.take())
    try:
        yield fleet
    finally:
        fleet.close()


def tags(frames: list[Frame]) -> list[str]:
    return [frame.body.rstrip(b"\0").decode() for frame in frames if frame.kind == "C"]


def only(rows: Rows, **where: str) -> dict[str, str | None]:
    found = [row for row in rows if all(row[key] == value for key, value in where.items())]
    assert len(found) == 1, rows
    return found[0]


# --- clients and views ------------------------------------------------------------------------------


def test_all_workers_take_clients_and_serve_them(kept: Fleet) -> None:
    assert len(kept.workers()) == WORKERS
    assert set(kept.workers().values()) == kept.all_pids() - {kept.serve.process.pid}
    for clients in kept.spread().values():
        assert clients[0].value("SELECT name FROM where_am_i") == "shared"


def test_views_are_those_of_all_workers(kept: Fleet) -> None:
    by_worker = kept.spread()
    clients = [client for some in by_worker.values() for client in some]
    for some in by_worker.values():
        some[0].query("BEGIN")
    pool = only(kept.console("SHOW POOLS"), database="appdb", user="app")
    assert int(pool["cl_active"] or 0) >= len(clients)
    assert int(pool["sv_active"] or 0) == WORKERS
    servers = kept.console("SHOW SERVERS")
    assert {row["worker"] for row in servers if row["state"] == "active"} == set(map(str, by_worker))
    tenant = only(kept.console("SHOW TENANTS"), name="std_1")
    assert int(tenant["clients"] or 0) >= len(clients)
    assert int(tenant["servers"] or 0) >= WORKERS
    lists = {row["list"]: int(row["items"] or 0) for row in kept.console("SHOW LISTS")}
    assert lists["tenants"] == 2
    assert lists["pools"] == len(kept.console("SHOW POOLS"))
    assert lists["used_clients"] == len(kept.console("SHOW CLIENTS"))
    for some in by_worker.values():
        some[0].query("COMMIT")
    for command in (
        "DATABASES",
        "STATS",
        "STATS_TOTALS",
        "STATS_AVERAGES",
        "TOTALS",
        "STATE",
        "TIERS",
        "CLUSTERS",
        "USERS",
        "CONFIG",
        "ROUTE std_1",
        "VERSION",
    ):
        rows = [tuple(row.values()) for row in kept.console(f"SHOW {command}")]
        assert rows
        assert len(set(rows)) == len(rows), command


def test_one_scrape_shows_all_workers(kept: Fleet) -> None:
    by_worker = kept.spread()
    before = kept.metric("db_query_count"), kept.metric("tiergate_transactions_total")
    for clients in by_worker.values():
        for _ in range(5):
            clients[0].query("SELECT 1")
    assert kept.metric("db_query_count") == before[0] + 5 * WORKERS
    assert kept.metric("tiergate_transactions_total") == before[1] + 5 * WORKERS
    assert kept.metric("tenant_active_connections") == len(kept.console("SHOW CLIENTS"))
    assert kept.get("/readyz") == (200, '{"status":"ready","problems":[],"warnings":[]}')
    assert kept.get("/healthz")[0] == 200


def test_a_worker_that_hangs_holds_up_no_scrape(kept: Fleet) -> None:
    counted = kept.metric("db_query_count")
    (victim, pid), (other, _), *_ = kept.workers().items()
    while kept.worker_of(kept.client()) != other:
        pass
    consoles = [kept.client("admin", "tiergate") for _ in range(12)]
    os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor() as both:
            found, ready = both.submit(kept.metric, "db_query_count"), both.submit(kept.get, "/readyz")
        assert found.result() == counted
        assert ready.result()[0] == 200
        silent = kept.serve.event("a worker is silent")["worker"]
        assert silent == victim
        # From now on nobody waits for it, be there ever so many questions.
        unanswered = kept.serve.event_names().count("a worker does not answer")
        for _ in range(3):
            assert kept.metric("db_query_count") == counted
            assert kept.get("/readyz")[0] == 200
        assert kept.serve.event_names().count("a worker does not answer") == unanswered
        for console in consoles:
            console.send(rawclient.query("SHOW WORKERS"))
        console = wait_until(lambda: next((c for c in consoles if not c.nothing_to_read(0)), None))
        assert only(table(console.read_ready()), worker=str(silent))["state"] == "silent"
        assert other in {int(row["worker"] or 0) for row in table(console.query("SHOW CLIENTS"))}
    finally:
        os.kill(pid, signal.SIGCONT)
    kept.serve.event("a worker is silent no more")
    assert len(kept.workers()) == WORKERS
    assert kept.metric("db_query_count") == counted


def test_a_route_is_told_and_what_is_unknown_refused(kept: Fleet) -> None:
    assert "shared" in [row["value"] for row in kept.console("SHOW ROUTE std_1")]
    assert kept.refused("SHOW ROUTE nobody") == "22023"
    assert kept.refused("SHOW NONSENSE") == "42601"
    assert kept.refused("KILL nobody") == "22023"
    assert kept.refused("RESUME") == "22023"
    assert kept.refused("SET nonsense = 1") == "F0000"


# --- verbs ------------------------------------------------------------------------------------------


def test_pause_waits_for_all_workers_and_holds_all_clients(kept: Fleet) -> None:
    by_worker = kept.spread()
    firsts = [clients[0] for clients in by_worker.values()]
    firsts[0].query("BEGIN")
    console = kept.client("admin", "tiergate")
    console.send(rawclient.query("PAUSE"))
    for client in firsts[1:]:
        wait_until(lambda: only(kept.console("SHOW DATABASES"), name="shared")["paused"] == "1")
        client.send(rawclient.query("SELECT 2"))
    assert console.nothing_to_read(0.2)
    firsts[0].query("COMMIT")
    assert rawclient.kinds(console.read_ready()) == "CZ"
    assert all(client.nothing_to_read(0.05) for client in firsts[1:])
    kept.console("RESUME")
    for client in firsts[1:]:
        assert rawclient.rows(client.read_ready()) == [["2"]]


def test_kill_and_disable_reach_clients_of_all_workers(kept: Fleet) -> None:
    by_worker = kept.spread()
    one = by_worker[min(by_worker)][0]
    port = str(one.sock.getsockname()[1])
    pointer = only(kept.console("SHOW CLIENTS"), port=port)["ptr"]
    kept.console(f"KILL CLIENT {pointer}")
    assert sqlstates(one.read_to_eof()) == ["57P01"]
    assert kept.refused(f"KILL CLIENT {pointer}") == "22023"
    assert kept.refused("KILL CLIENT 999:0x1") == "22023"
    two = by_worker[max(by_worker)][0]
    identity = only(kept.console("SHOW CLIENTS"), port=str(two.sock.getsockname()[1]))["id"]
    kept.console(f"KILL_CLIENT {identity}")
    assert sqlstates(two.read_to_eof()) == ["57P01"]
    kept.console("KILL std_1")
    wait_until(lambda: not kept.console("SHOW CLIENTS"))
    kept.console("DISABLE std_1")
    for _ in range(10):
        with pytest.raises(ServerError) as refused:
            kept.client()
        assert refused.value.sqlstate == "28000"
    kept.console("ENABLE std_1")
    kept.client()
    assert kept.refused("ENABLE std_1") == "22023"


def test_kill_of_a_cluster_pauses_it_in_all_workers(kept: Fleet) -> None:
    by_worker = kept.spread()
    kept.console("KILL shared")
    for clients in by_worker.values():
        assert sqlstates(clients[0].read_to_eof()) == ["57P01"]
    wait_until(lambda: not kept.console("SHOW SERVERS"))
    assert kept.refused("KILL shared") == "22023"
    client = kept.client()
    client.send(rawclient.query("SELECT 1"))
    assert client.nothing_to_read(0.1)
    kept.console("RESUME shared")
    assert rawclient.rows(client.read_ready()) == [["1"]]


def test_set_holds_in_all_workers(kept: Fleet) -> None:
    by_worker = kept.spread()
    kept.console("SET query_timeout = 100ms")
    assert only(kept.console("SHOW CONFIG"), key="query_timeout")["value"] == "100ms"
    for clients in by_worker.values():
        assert sqlstates(clients[0].query("SELECT pg_sleep(20)")) == ["57014"]
    kept.console("SET query_timeout = 0")
    for clients in by_worker.values():
        assert sqlstates(clients[0].query("SELECT pg_sleep(0.2)")) == []


def test_a_worker_that_hangs_holds_up_no_reload(kept: Fleet) -> None:
    by_worker = kept.spread()
    victim = min(by_worker)
    consoles = [kept.client("admin", "tiergate") for _ in range(12)]
    pid = kept.workers()[victim]
    silent = kept.serve.event_names().count("a worker is silent")
    os.kill(pid, signal.SIGSTOP)
    try:
        console = next(console for console in consoles if not answers_nothing(console, "SHOW VERSION"))
        for command in ("SET query_timeout = 0", "SET query_timeout = 100ms", "RELOAD"):
            (notice,) = [frame for frame in console.query(command) if frame.kind == "N"]
            assert f"worker: {victim};".encode() in notice.body
            kept.serve.event("a worker is silent", silent + 1)  # and from now on is not waited for
        for number, clients in by_worker.items():
            if number != victim:
                assert sqlstates(clients[0].query("SELECT pg_sleep(20)")) == ["57014"]
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: all(frame.kind != "N" for frame in console.query("SET query_timeout = 100ms")))
    assert sqlstates(by_worker[victim][0].query("SELECT pg_sleep(20)")) == ["57014"]
    assert kept.console("SET query_timeout = 0") == []


def answers_nothing(client: RawClient, query: str) -> bool:
    client.send(rawclient.query(query))
    return client.nothing_to_read(1) or not client.read_ready()


def test_a_changed_file_reaches_all_workers(fleet: Fleet) -> None:
    by_worker = fleet.spread()
    fresh = fleet.serve.config.with_suffix(".new")
    fresh.write_text(fleet.serve.config.read_text() + "\n[tenant.std_1.limits]\nquery_timeout = '100ms'\n")
    fresh.rename(fleet.serve.config)
    fleet.serve.event("configuration reloaded", 2 + 1)
    for clients in by_worker.values():
        assert sqlstates(clients[0].query("SELECT pg_sleep(20)")) == ["57014"]


def test_sighup_reaches_all_workers_and_a_wrong_file_none(fleet: Fleet) -> None:
    config = fleet.serve.config
    by_worker = fleet.spread()
    good = config.read_text()
    config.write_text("[proxy]\nlisten_prot = 1\n")
    fleet.serve.signal(signal.SIGHUP)
    assert "listen_prot" in fleet.serve.event("reload refused, the old configuration stays")["problems"][0]
    assert fleet.metric("tiergate_config_refused") == 1
    config.write_text(good + "\n[tenant.std_1.limits]\nquery_timeout = '100ms'\n")
    assert not [name for name in fleet.serve.event_names() if name == "configuration reloaded"]
    fleet.serve.signal(signal.SIGHUP)
    fleet.serve.event("configuration reloaded", 2 + 1)
    assert fleet.metric("tiergate_config_refused") == 0
    for clients in by_worker.values():
        assert sqlstates(clients[0].query("SELECT pg_sleep(20)")) == ["57014"]
    config.write_text(good.replace("workers = 2", "workers = 3"))
    with RawClient(fleet.port) as console:
        console.log_in("admin", "tiergate", "")
        frames = console.query("RELOAD")
    assert any(frame.kind == "N" and b"workers" in frame.body for frame in frames)
    assert sqlstates(by_worker[min(by_worker)][0].query("SELECT pg_sleep(0.2)")) == []


# --- workers end ------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_takes_only_its_clients_along_and_is_replaced(fleet: Fleet) -> None:
    by_worker = fleet.spread()
    fleet.console("DISABLE std_2")
    fleet.console("SET client_login_timeout = 7s")
    before = (
        fleet.metric("db_query_count"),
        int(only(fleet.console("SHOW STATS"), user="app")["total_query_count"] or 0),
    )
    victim = min(by_worker)
    for clients in by_worker.values():
        clients[0].query("BEGIN")
    counted = fleet.metric("db_query_count")
    assert counted == before[0] + 2
    os.kill(fleet.workers()[victim], signal.SIGKILL)
    assert fleet.serve.event("worker ended")["how"] == "SIGKILL"
    for client in by_worker.pop(victim):
        assert client.read_to_eof() == []
    for clients in by_worker.values():
        for client in clients:
            assert client.value("SELECT 1") == "1"
    new = wait_until(lambda: (fleet.workers().keys() - {victim, *by_worker}) or None)
    row = only(fleet.console("SHOW WORKERS"), worker=str(*new))
    assert row["restarts"] == "1"
    assert len(fleet.workers()) == 2
    assert fleet.metric("db_query_count") >= counted
    assert int(only(fleet.console("SHOW STATS"), user="app")["total_query_count"] or 0) >= before[1]
    # What was said to the others holds for it.
    while fleet.worker_of(client := fleet.client()) not in new:
        client.close()
    for _ in range(10):
        with pytest.raises(ServerError):
            fleet.client("app@std_2")
    assert only(fleet.console("SHOW CONFIG"), key="client_login_timeout")["value"] == "7s"


def test_a_worker_that_hangs_is_replaced(fleet: Fleet) -> None:
    by_worker = fleet.spread()
    victim = min(by_worker)
    fleet.console("SET worker_hang_timeout = 300ms")
    os.kill(fleet.workers()[victim], signal.SIGSTOP)
    assert fleet.serve.event("a worker is killed, since it hangs")["worker"] == victim
    for client in by_worker.pop(victim):
        assert client.read_to_eof() == []
    wait_until(lambda: fleet.workers().keys() - {victim, *by_worker})
    for clients in by_worker.values():
        for client in clients:
            assert client.value("SELECT 1") == "1"
    assert victim not in fleet.workers()


def test_clients_that_come_while_a_worker_is_replaced_are_not_refused(fleet: Fleet) -> None:
    for _ in range(2):
        os.kill(fleet.workers()[min(fleet.workers())], signal.SIGKILL)
        for _ in range(20):
            with fleet.client() as client:
                assert client.value("SELECT 1") == "1"
        wait_until(lambda: len(fleet.workers()) == 2)


def test_a_paused_cluster_stays_so_in_a_new_worker(fleet: Fleet) -> None:
    fleet.console("PAUSE shared")
    for pid in fleet.workers().values():
        os.kill(pid, signal.SIGKILL)
    fleet.serve.event("worker started", 2 * 2)
    client = fleet.waiting_client()
    assert client.nothing_to_read(0.3)
    fleet.console("RESUME shared")
    client.read_ready()
    assert client.value("SELECT 3") == "3"


def test_a_worker_that_gets_sigterm_drains_and_is_replaced(fleet: Fleet) -> None:
    by_worker = fleet.spread()
    victim = min(by_worker)
    busy = by_worker[victim][0]
    busy.query("BEGIN")
    os.kill(fleet.workers()[victim], signal.SIGTERM)
    wait_until(lambda: victim in fleet.workers("ending"))
    wait_until(lambda: len(fleet.workers()) == 2)
    assert busy.value("SELECT 1") == "1"
    busy.send(rawclient.query("COMMIT"))
    assert "57P01" in sqlstates(busy.read_to_eof())
    assert fleet.serve.event("worker ended")["how"] == "exit 0"
    wait_until(lambda: len(fleet.workers()) == 2)
    assert fleet.worker_of(by_worker[max(by_worker)][0]) == max(by_worker)


def test_sigterm_drains_all_workers(fleet: Fleet) -> None:
    by_worker = fleet.spread()
    pids = fleet.all_pids()
    busy = [clients[0] for clients in by_worker.values()]
    idle = [client for clients in by_worker.values() for client in clients[1:]]
    for client in busy:
        client.query("BEGIN")
    fleet.serve.signal(signal.SIGTERM)
    for client in idle:
        assert sqlstates(client.read_to_eof()) == ["57P01"]
    with pytest.raises(ConnectionRefusedError):
        wait_until(lambda: socket.create_connection(("127.0.0.1", fleet.port), 5).close())
    assert fleet.get("/readyz")[0] == 503
    assert fleet.get("/healthz")[0] == 200
    for client in busy:
        assert client.value("SELECT 42") == "42"
        client.send(rawclient.query("COMMIT"))
        client.read_to_eof()
    assert fleet.serve.wait() == 0
    assert not any(map(alive, pids))
    ended = [event for event in fleet.serve.events if event["event"] == "worker ended"]
    assert [event["how"] for event in ended] == ["exit 0"] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_at_once(fleet: Fleet, number: signal.Signals) -> None:
    client = fleet.client()
    client.query("BEGIN")
    pids = fleet.all_pids()
    fleet.serve.signal(number)
    if number is signal.SIGTERM:
        fleet.serve.event("draining")
        fleet.serve.signal(number)
    assert sqlstates(client.read_to_eof()) == ["57P01"]
    assert fleet.serve.wait() == 0
    assert not any(map(alive, pids))


def test_the_console_can_shut_it_down(fleet: Fleet) -> None:
    pids = fleet.all_pids()
    with contextlib.suppress(OSError, AssertionError), RawClient(fleet.port) as console:
        console.log_in("admin", "tiergate", "")
        console.query("SHUTDOWN")
    assert fleet.serve.wait() == 0
    assert not any(map(alive, pids))


def test_workers_leave_when_the_supervisor_is_killed(fleet: Fleet) -> None:
    idle, busy = fleet.client(), fleet.client()
    busy.query("BEGIN")
    pids = fleet.all_pids()
    fleet.serve.process.kill()
    assert sqlstates(idle.read_to_eof()) == ["57P01"]
    assert busy.value("SELECT 1") == "1"
    busy.send(rawclient.query("COMMIT"))
    busy.read_to_eof()
    wait_until(lambda: not any(map(alive, pids)))
    fleet.serve.wait()


def test_what_cannot_start_says_so_and_leaves_nothing(shared: EmbeddedServer, tmp_path: Path) -> None:
    config = tmp_path / "tiergate.toml"
    for listener in ("plain", "shares its port"):
        with socket.socket() as taken:
            if listener != "plain":
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            config.write_text(text(shared, listen_port=taken.getsockname()[1]))
            result = subprocess.run(
                [*COMMAND, "serve", "--config", str(config)],
                capture_output=True,
                text=True,
                timeout=30,
                cwd=ROOT,
            )
        assert result.returncode == 1, listener
        assert "Address already in use" in result.stderr, listener


# --- upgrade in place -------------------------------------------------------------------------------


def upgraded(fleet: Fleet, count: int = 1) -> None:
    fleet.serve.event("upgraded", count)


def test_an_upgrade_drops_and_refuses_nobody(fleet: Fleet) -> None:
    pid, old = fleet.serve.process.pid, fleet.workers()
    stays = fleet.spread()  # at least one on each worker, so that no worker leaves
    busy, idle = fleet.client(), fleet.client()
    busy.query("BEGIN")
    busy.query("SET LOCAL application_name = 'kept'")
    idle.query("SELECT 1")
    before = fleet.metric("db_query_count")
    console = fleet.client("admin", "tiergate")
    stop, failures, served = threading.Event(), [], []

    def come_and_go() -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(
                    f"host=127.0.0.1 port={fleet.port} user=app@std_1 dbname=appdb", autocommit=True
                ) as connection:
                    served.append(connection.execute("SELECT 1").fetchone())
            except psycopg.Error as error:
                failures.append(error)

    comer = threading.Thread(target=come_and_go)
    comer.start()
    try:
        assert tags(console.query("UPGRADE")) == ["UPGRADE"]
        upgraded(fleet)
        wait_until(lambda: len(fleet.workers()) == 2)
        count = len(served)
        wait_until(lambda: len(served) > count + 20)
    finally:
        stop.set()
        comer.join()
    assert not failures
    assert fleet.serve.process.pid == pid
    assert not fleet.workers().keys() & old.keys()
    assert fleet.workers("retiring").keys() <= old.keys()
    # Those of before are served by their old workers, which the views still show.
    assert busy.value("SHOW application_name") == "kept"
    busy.query("COMMIT")
    assert idle.value("SELECT 2") == "2"
    assert {fleet.worker_of(busy), fleet.worker_of(idle)} <= old.keys()
    assert fleet.worker_of(fleet.client()) in fleet.workers()
    assert fleet.metric("db_query_count") >= before + len(served)
    # A console of before asks the new program.
    assert table(console.query("SHOW WORKERS"))[-1]["worker"] == str(max(fleet.workers()))
    before = fleet.metric("db_query_count")
    for client in (busy, idle, console, *(client for clients in stays.values() for client in clients)):
        client.close()
    wait_until(lambda: not any(map(alive, old.values())))
    assert fleet.metric("db_query_count") >= before
    fleet.serve.signal(signal.SIGUSR2)
    upgraded(fleet, 2)
    assert fleet.client().value("SELECT 3") == "3"


def test_a_single_worker_with_a_supervisor_is_upgraded_and_keeps_its_caps(
    shared: EmbeddedServer, tmp_path: Path
) -> None:
    config = text(shared, workers=1, supervised=True) + "[tenant.std_1.limits]\nmax_connections = 1\n"
    with running(tmp_path / "tiergate.toml", config) as fleet:
        pid, (old,) = fleet.serve.process.pid, fleet.workers()
        client = fleet.client()
        client.query("BEGIN")
        fleet.serve.signal(signal.SIGUSR2)
        upgraded(fleet)
        assert fleet.serve.process.pid == pid
        wait_until(lambda: old not in fleet.workers() and len(fleet.workers()) == 1)
        assert fleet.client("app@std_2").value("SELECT 1") == "1"
        other = fleet.client()
        other.send(rawclient.query("SELECT 3"))
        assert other.nothing_to_read(0.1), "the old worker has the only connection"
        assert client.value("SELECT 2") == "2"
        client.query("COMMIT")
        assert rawclient.rows(other.read_ready()) == [["3"]]


def test_what_was_said_before_an_upgrade_holds_after_it(fleet: Fleet) -> None:
    fleet.console("DISABLE std_2")
    fleet.console("SET query_timeout = 100ms")
    fleet.console("PAUSE shared")
    fleet.serve.signal(signal.SIGUSR2)
    upgraded(fleet)
    wait_until(lambda: not fleet.workers("retiring") and not fleet.workers("ending"))
    client = fleet.waiting_client()
    assert client.nothing_to_read(0.3)
    fleet.console("RESUME shared")
    client.read_ready()
    assert sqlstates(client.query("SELECT pg_sleep(20)")) == ["57014"]
    with pytest.raises(ServerError):
        fleet.client("app@std_2")


def test_an_upgrade_may_change_the_number_of_workers(fleet: Fleet) -> None:
    config = fleet.serve.config
    for count, workers in enumerate((1, 3), 1):
        config.write_text(re.sub(r"workers = \d", f"workers = {workers}", config.read_text()))
        fleet.serve.signal(signal.SIGUSR2)
        upgraded(fleet, count)
        assert len(fleet.workers()) == workers
        for _ in range(20):
            with fleet.client() as client:
                assert client.value("SELECT 1") == "1"


def test_an_upgrade_that_cannot_work_is_refused(fleet: Fleet) -> None:
    config, client = fleet.serve.config, fleet.client()
    good = config.read_text()
    config.write_text("[proxy]\nlisten_prot = 1\n")
    assert fleet.refused("UPGRADE") == "F0000"
    fleet.serve.signal(signal.SIGUSR2)
    assert "listen_prot" in "".join(fleet.serve.event("upgrade refused")["problems"])
    assert client.value("SELECT 1") == "1"
    assert "upgrading" not in fleet.serve.event_names()
    config.write_text(good)
    fleet.serve.signal(signal.SIGUSR2)
    upgraded(fleet)
    assert client.value("SELECT 1") == "1"


def test_an_upgrade_may_follow_another_before_that_is_done(fleet: Fleet) -> None:
    client, old = fleet.client(), fleet.workers()
    for count in (1, 2):
        fleet.serve.signal(signal.SIGUSR2)
        fleet.serve.event("upgrading", count)
        fleet.serve.event("listening", count + 1)
    upgraded(fleet)
    assert client.value("SELECT 1") == "1"
    client.close()
    wait_until(lambda: not any(map(alive, old.values())))
    wait_until(lambda: fleet.all_pids() == {fleet.serve.process.pid, *fleet.workers().values()})
    assert len(fleet.workers()) == 2


def test_old_workers_are_drained_after_upgrade_timeout(shared: EmbeddedServer, tmp_path: Path) -> None:
    settings = text(shared, workers=2, upgrade_timeout="200ms", http_addr="")
    with (
        running(tmp_path / "tiergate.toml", settings) as fleet,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        idle = fleet.client()
        old = fleet.workers()
        # What a start would fail for must not end those that serve.
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text_now = settings.replace('http_addr = ""', f'http_addr = "{address}"\npidfile = "/none/pid"')
        fleet.serve.config.write_text(text_now)
        fleet.serve.signal(signal.SIGUSR2)
        assert address in fleet.serve.event("no HTTP")["problems"][0]
        assert sqlstates(idle.read_to_eof()) == ["57P01"]
        wait_until(lambda: not any(map(alive, old.values())))
        assert len(fleet.workers()) == 2


def test_the_unix_socket_is_there_before_during_and_after_an_upgrade(
    shared: EmbeddedServer, tmp_path: Path
) -> None:
    directory = tmp_path / "sockets"
    directory.mkdir()
    with running(tmp_path / "tiergate.toml", text(shared, unix_socket_dir=str(directory))) as fleet:
        where = f"host={directory} port={fleet.port} user=app@std_1 dbname=appdb"
        psycopg.connect(where).close()
        fleet.serve.signal(signal.SIGUSR2)
        upgraded(fleet)
        psycopg.connect(where).close()
        wait_until(lambda: not fleet.workers("retiring") and not fleet.workers("ending"))
        psycopg.connect(where).close()
        fleet.serve.signal(signal.SIGTERM)
        assert fleet.serve.wait() == 0
    assert not list(directory.iterdir())
