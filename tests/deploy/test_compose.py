"""The compose file: three servers, and a proxy whose configuration loads and routes to them."""

from __future__ import annotations

from proxy import settings
from proxy.settings import Settings
from tests.deploy.documents import DEPLOY, ROOT, documents

(COMPOSE,) = documents(DEPLOY / "compose.yaml")
PROXY = COMPOSE["services"]["tiergate"]


def config() -> Settings:
    path = DEPLOY / "compose" / "tiergate.toml"
    return settings.parse(path.read_text(), str(path), {"APP_PASSWORD": "a", "ADMIN_PASSWORD": "b"})


def test_every_endpoint_is_a_service() -> None:
    hosts = {e.host for cluster in config().directory.clusters.values() for e in cluster.endpoints}
    assert hosts == set(COMPOSE["services"]) - {"tiergate"}
    assert set(PROXY["depends_on"]) == hosts


def test_a_tenant_of_each_tier() -> None:
    assert {tenant.tier for tenant in config().directory.tenants.values()} == {
        "enterprise", "vip", "standard", "free",
    }  # fmt: skip


def test_each_server_knows_its_cluster() -> None:
    names = {
        service["environment"]["CLUSTER"]
        for name, service in COMPOSE["services"].items()
        if name != "tiergate"
    }
    assert names == set(config().directory.clusters)


def test_ports_on_loopback_equal_the_configuration() -> None:
    process = config().process
    assert PROXY["ports"] == [f"127.0.0.1:{port}:{port}" for port in (process.listen_port, 9187)]


def test_files_that_are_mounted_exist_and_variables_are_given() -> None:
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            assert (DEPLOY / volume.split(":")[0]).is_file()
    assert set(PROXY["environment"]) == {"APP_PASSWORD", "ADMIN_PASSWORD"}
    assert (DEPLOY / PROXY["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"


def test_a_drain_fits_into_the_grace_period() -> None:
    assert settings.duration(PROXY["stop_grace_period"]) > config().process.shutdown_timeout
