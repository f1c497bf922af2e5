"""The Kubernetes manifests: names that refer to each other, ports, probes, rights, and time to drain."""

from __future__ import annotations

from typing import Any

import pytest

from proxy import settings
from proxy.settings import Settings
from tests.deploy.documents import DEPLOY, documents, instructions
from tests.deploy.test_image import environment

FILES = ("fleet", "sidecar")


def load(name: str) -> dict[str, dict[str, Any]]:
    return {d["kind"]: d for d in documents(DEPLOY / "kubernetes" / f"{name}.yaml")}


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = load(name)["Deployment"]["spec"]["template"]["spec"]
    return spec


def proxy_of(name: str) -> dict[str, Any]:
    spec = pod(name)
    (found,) = [c for c in [*spec.get("initContainers", []), *spec["containers"]] if c["name"] == "tiergate"]
    return found


def config(name: str) -> Settings:
    text = load(name)["ConfigMap"]["data"]["tiergate.toml"]
    env = {entry["name"]: entry["value"] for entry in proxy_of(name).get("env", [])}
    secrets = {"APP_PASSWORD": "a", "ADMIN_PASSWORD": "b"}
    return settings.parse(text, name, {**environment(), **env, **secrets})


@pytest.mark.parametrize("name", FILES)
def test_ports_equal_the_configuration(name: str) -> None:
    process = config(name).process
    assert process.http is not None
    expected = {"http": process.http[1]}
    if name == "fleet":
        expected["postgres"] = process.listen_port
    assert {p["name"]: p["containerPort"] for p in proxy_of(name)["ports"]} == expected


def test_service_and_policy_use_those_ports() -> None:
    fleet, process = load("fleet"), config("fleet").process
    (port,) = fleet["Service"]["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (process.listen_port, "postgres")
    rules = fleet["NetworkPolicy"]["spec"]["ingress"]
    assert process.http is not None
    assert [p["port"] for rule in rules for p in rule["ports"]] == [process.listen_port, process.http[1]]


def test_the_policy_lets_the_proxy_reach_its_servers() -> None:
    ports = {p["port"] for rule in load("fleet")["NetworkPolicy"]["spec"]["egress"] for p in rule["ports"]}
    assert {e.port for c in config("fleet").directory.clusters.values() for e in c.endpoints} <= ports


def test_the_fleet_listens_for_all_and_the_sidecar_for_its_pod() -> None:
    assert config("fleet").process.listen_addr == "*"
    assert config("sidecar").process.listen_addr == "127.0.0.1"


@pytest.mark.parametrize("name", FILES)
def test_labels_select_the_pods(name: str) -> None:
    found = load(name)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [found["Deployment"]["spec"]["selector"]["matchLabels"]]
    if name == "fleet":
        selectors += [
            found["Service"]["spec"]["selector"],
            found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
            found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()


@pytest.mark.parametrize("name", FILES)
def test_probes(name: str) -> None:
    container = proxy_of(name)
    paths = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    for probe, path in paths.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}


@pytest.mark.parametrize("name", FILES)
def test_no_root_and_no_rights(name: str) -> None:
    spec = pod(name)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    (user,) = [rest for word, rest in instructions(DEPLOY.parent / "Dockerfile") if word == "USER"]
    assert user == f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "limits" in container["resources"]


@pytest.mark.parametrize("name", FILES)
def test_a_drain_fits_into_the_grace_period(name: str) -> None:
    hook = (
        proxy_of(name).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    )
    assert hook[0] == "sleep"
    needed = int(hook[1]) + config(name).process.shutdown_timeout
    assert pod(name)["terminationGracePeriodSeconds"] > needed


@pytest.mark.parametrize("name", FILES)
def test_configuration_and_secret_are_mounted_where_serve_looks(name: str) -> None:
    container, found = proxy_of(name), load(name)
    (mount,) = container["volumeMounts"]
    (volume,) = [v for v in pod(name)["volumes"] if v["name"] == mount["name"]]
    assert volume["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    assert container["args"] == ["serve", "--config", f"{mount['mountPath']}/tiergate.toml"]
    (secret,) = container["envFrom"]
    assert secret["secretRef"]["name"]
    assert "password" not in str(found["ConfigMap"]["data"]).lower().replace('password = "${', "").replace(
        "_password}", ""
    )


def test_the_sidecar_is_up_before_the_application_and_ends_after_it() -> None:
    assert proxy_of("sidecar")["restartPolicy"] == "Always"
    assert proxy_of("sidecar") in pod("sidecar")["initContainers"]
    url = {e["name"]: e.get("value", "") for e in pod("sidecar")["containers"][0]["env"]}["DATABASE_URL"]
    assert f"@127.0.0.1:{config('sidecar').process.listen_port}/" in url


def test_a_disruption_leaves_a_proxy() -> None:
    found = load("fleet")
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] < found["Deployment"]["spec"]["replicas"]
    assert found["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
