"""The views and verbs by HTTP: they show and do what the console's do."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from proxy import log
from tests.control.api import calling
from tests.control.api.calling import call
from tests.integration.running import waiting
from tests.rawclient import query

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, shared: EmbeddedServer) -> Proxy:
    return calling.start(start_module_proxy, shared)


@pytest.mark.parametrize("name", ["pools", "clients", "servers", "clusters", "tiers", "workers", "stats"])
def test_views_are_the_consoles(proxy: Proxy, name: str) -> None:
    client = proxy.raw()
    client.query("SELECT 1")
    items = call(proxy, "GET", f"/v1/{name}", "viewer").json()["items"]
    shown = proxy.console(f"SHOW {name.upper()}")
    assert items
    assert [list(item) for item in items] == [list(row) for row in shown]
    first = call(proxy, "GET", f"/v1/{name}?limit=1", "viewer").json()
    assert (len(first["items"]), first["total"]) == (1, len(shown))
    client.close()


def test_the_queue_of_a_paused_cluster(proxy: Proxy) -> None:
    client = proxy.raw()
    assert call(proxy, "POST", "/v1/clusters/shared/pause", "operator").status_code == 200
    client.send(query("SELECT 1"))
    waiting(proxy, 1)
    answer = call(proxy, "GET", "/v1/queue", "viewer").json()
    assert answer["total"] == 1
    assert {key: answer["items"][0][key] for key in ("tenant", "waiting", "why")} == {
        "tenant": "std_1",
        "waiting": 1,
        "why": "the cluster is paused",
    }
    assert call(proxy, "POST", "/v1/clusters/shared/resume", "operator").status_code == 200
    client.read_ready()
    client.close()


def test_pause_and_resume(proxy: Proxy) -> None:
    answer = call(proxy, "POST", "/v1/clusters/shared/pause", "operator")
    assert (answer.status_code, answer.json()["state"]) == (200, "done")
    assert {row["paused"] for row in proxy.console("SHOW DATABASES")} == {"1"}
    assert call(proxy, "POST", "/v1/clusters/shared/resume", "operator").status_code == 200
    again = call(proxy, "POST", "/v1/clusters/shared/resume", "operator")
    assert (again.status_code, again.json()["detail"]) == (409, 'cluster "shared" is not paused')
    assert call(proxy, "POST", "/v1/clusters/*/pause", "operator").status_code == 200
    assert call(proxy, "POST", "/v1/clusters/*/resume", "operator").status_code == 200


def test_a_pause_that_takes_longer_than_one_waits_goes_on(proxy: Proxy) -> None:
    client = proxy.raw()
    client.query("BEGIN")
    answer = call(proxy, "POST", "/v1/clusters/shared/pause?timeout=0.05", "operator")
    assert (answer.status_code, answer.json()["state"]) == (202, "under way")
    assert proxy.console("SHOW DATABASES")[0]["paused"] == "1"
    client.query("COMMIT")
    assert call(proxy, "POST", "/v1/clusters/shared/resume", "operator").status_code == 200
    assert client.value("SELECT 1") == "1"
    client.close()


def test_reconnect(proxy: Proxy) -> None:
    client = proxy.raw()
    before = client.value("SELECT pg_backend_pid()")
    assert call(proxy, "POST", "/v1/clusters/shared/reconnect", "operator").status_code == 200
    assert client.value("SELECT pg_backend_pid()") != before
    client.close()


def test_kill_of_one_client_of_a_tenant_and_of_a_cluster(proxy: Proxy) -> None:
    one, two, three = proxy.raw(), proxy.raw(), proxy.raw("app@std_2")
    pid = one.pid
    clients = call(proxy, "GET", "/v1/clients", "viewer").json()["items"]
    (ptr,) = [client["ptr"] for client in clients if client["remote_pid"] == pid]
    assert call(proxy, "DELETE", f"/v1/clients/{ptr}", "operator").status_code == 200
    one.read_to_eof()
    assert call(proxy, "DELETE", f"/v1/clients/{ptr}", "operator").status_code == 404
    assert call(proxy, "POST", "/v1/tenants/std_1/kill", "tenant-admin").json()["name"] == "std_1"
    two.read_to_eof()
    assert three.value("SELECT 1") == "1"
    assert call(proxy, "POST", "/v1/clusters/shared/kill", "operator").status_code == 200
    three.read_to_eof()
    assert call(proxy, "POST", "/v1/clusters/shared/kill", "operator").status_code == 409
    assert call(proxy, "POST", "/v1/clusters/shared/resume", "operator").status_code == 200


def test_names_that_are_not_there(proxy: Proxy) -> None:
    for verb in ("pause", "resume", "reconnect", "kill"):
        answer = call(proxy, "POST", f"/v1/clusters/nowhere/{verb}", "operator")
        assert (answer.status_code, answer.json()["detail"]) == (404, 'cluster "nowhere" does not exist')
    assert call(proxy, "GET", "/v1/nothing", "admin").json()["status"] == 404
    assert call(proxy, "PUT", "/v1/pools", "admin").json()["status"] == 405
    assert call(proxy, "PUT", "/v1/pools", "admin").headers["allow"] == "GET"
    assert call(proxy, "PUT", "/v1/tenants/std_1", "admin").headers["allow"] == "DELETE, GET, PATCH"
    wrong = call(proxy, "POST", "/v1/clusters/shared/pause?timeout=soon", "operator").json()
    assert (wrong["status"], wrong["field"]) == (422, "timeout")


def test_reload_tells_what_is_wrong_by_key(proxy: Proxy) -> None:
    assert call(proxy, "POST", "/v1/reload", "operator").json()["needs_restart"] == []
    text = proxy.config.read_text()
    proxy.config.write_text(text.replace("listen_addr", "listen_adr"))
    answer = call(proxy, "POST", "/v1/reload", "operator")
    proxy.config.write_text(text)
    assert answer.status_code == 422
    assert [wrong["field"] for wrong in answer.json()["errors"]] == ["[proxy] listen_adr"]


def test_route(proxy: Proxy) -> None:
    steps = call(proxy, "GET", "/v1/tenants/std_2/route?user=app", "viewer").json()["items"]
    assert [s["step"] for s in steps] == [row["step"] for row in proxy.console("SHOW ROUTE std_2 USER app")]
    by_id = call(proxy, "GET", f"/v1/tenants/{calling.ID}/route?user=app", "viewer").json()["items"]
    assert by_id == steps
    for path, field in (("nobody/route", "tenant"), ("std_1/route?user=nobody", None)):
        answer = call(proxy, "GET", f"/v1/tenants/{path}", "viewer")
        assert (answer.status_code, answer.json().get("field")) == (404, field)


def test_drain(start_proxy: StartProxy, shared: EmbeddedServer) -> None:
    proxy = calling.start(start_proxy, shared)
    assert call(proxy, "POST", "/v1/drain", "operator").status_code == 202
    assert proxy.call(proxy.worker.wants_to_stop.is_set)


def test_the_page_needs_nothing_from_elsewhere(proxy: Proxy) -> None:
    page = call(proxy, "GET", "/docs", None)
    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/clusters/{name}/pause" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_verbs_are_told_to_the_log(proxy: Proxy) -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    try:
        call(proxy, "POST", "/v1/clusters/shared/reconnect", "operator")
        call(proxy, "POST", "/v1/clusters/nowhere/reconnect", "operator")
        call(proxy, "POST", "/v1/reload", "viewer")
        call(proxy, "POST", "/v1/reload", "wrong-token")
    finally:
        log.configure("console", "warning")
    told = {event["event"]: event for event in map(json.loads, stream.getvalue().splitlines())}
    assert (
        told["operator acted"].items() >= {"actor": "operator", "verb": "reconnect", "name": "shared"}.items()
    )
    assert told["operator could not act"]["reason"] == 'cluster "nowhere" does not exist'
    assert told["request refused"].items() >= {"actor": "viewer", "path": "/v1/reload"}.items()
    assert "unknown token" in told
    assert "wrong-token" not in stream.getvalue()
    assert not any(made in stream.getvalue() for made in calling.TOKENS.values())
