"""`tiergate tenants`, `pools` and `top` against a running proxy's API with a real registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from proxy.cli import main, remote
from proxy.cli.embedded import free_port
from tests.control.api import calling
from tests.control.api.calling import ID, TOKENS, Managed

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy


@pytest.fixture(scope="module")
def api(start_module_proxy: StartProxy, shared: EmbeddedServer) -> Iterator[Managed]:
    tables = calling.tables(shared) | {
        "cluster.vip-1": {"kind": "vip", "coordinators": [f"{shared.host}:{shared.port}"]}
    }
    with calling.registry(shared) as dsn:
        managed = Managed(start_module_proxy(tables, http_addr=f"127.0.0.1:{free_port()}"), dsn)
        yield managed
        managed.close()


def run(api: Managed, *arguments: str, role: str = "admin") -> Result:
    url = f"http://127.0.0.1:{api.http_port}"
    environment = {"TIERGATE_API_URL": url, "TIERGATE_API_TOKEN": TOKENS.get(role, role)}
    return CliRunner().invoke(main, arguments, env=environment)


def said(api: Managed, *arguments: str, role: str = "admin") -> Any:
    result = run(api, *arguments, "--json", role=role)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_life_of_a_tenant(api: Managed) -> None:
    made = said(
        api,
        "tenants",
        "create",
        "acme",
        "standard",
        "max_qps=50",
        "max_connections=none",
        "--title",
        "Acme Inc",
    )
    assert (made["tenant_name"], made["max_qps"], made["max_connections"]) == ("Acme Inc", 50, None)
    assert (
        said(api, "tenants", "set-limits", "acme", "max_qps=none", "memory_quota_gb=1.5")["max_qps"] is None
    )
    ending = said(
        api, "tenants", "set-limits", "acme", "--expires", "2020-01-01T00:00:00Z", "--title", "Acme"
    )
    assert (ending["state"], ending["tenant_name"]) == ("expired", "Acme")
    assert said(api, "tenants", "set-limits", "acme", "--expires", "none")["state"] == "active"
    moved = said(api, "tenants", "set-tier", made["tenant_id"], "vip")
    assert (moved["cluster"], moved["memory_quota_gb"]) == ("vip-1", 1.5)
    assert said(api, "tenants", "suspend", "acme", role="operator")["state"] == "suspended"
    assert said(api, "tenants", "list", "--state", "suspended")[0]["tenant_code"] == "acme"
    assert said(api, "tenants", "resume", "acme", role="operator")["state"] == "active"
    assert said(api, "tenants", "show", "acme")["version"] == 7
    assert said(api, "tenants", "delete", "acme") == {"deleted": "acme"}
    assert run(api, "tenants", "show", "acme").exit_code == 1


def test_create_says_where(api: Managed) -> None:
    own = said(
        api, "tenants", "create", "big", "enterprise", "--primary", "db1:5433", "--replica", "db2", "--replica", "db3",
        "--id", ID.replace("0b", "0c"), "--expires", "2040-01-01T00:00:00Z", "--key", "k",
    )  # fmt: skip
    assert own["replica_endpoints"] == ["db2", "db3"]
    again = said(
        api, "tenants", "create", "big", "enterprise", "--primary", "db1:5433", "--replica", "db2", "--replica", "db3",
        "--id", ID.replace("0b", "0c"), "--expires", "2040-01-01T00:00:00Z", "--key", "k",
    )  # fmt: skip
    assert again == own


def test_tables_for_people(api: Managed) -> None:
    run(api, "tenants", "create", "table", "free")
    (row,) = [line.split() for line in run(api, "tenants", "list").stdout.splitlines() if " table " in line]
    assert row == ["table", "free", "active", "shared", "-", "10", "-", "registry"]
    shown = run(api, "tenants", "show", "table").stdout
    assert [line.split() for line in shown.splitlines() if "tenant_code" in line] == [
        ["tenant_code", "table"]
    ]
    route = run(api, "tenants", "route", "std_2", "--user", "app", role="viewer").stdout
    assert [line for line in route.splitlines() if line.split()[:2] == ["cluster", "shared"]]


def test_list_goes_through_the_pages(api: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.cli.remote_tenants._PAGE", 2)
    for n in range(5):
        run(api, "tenants", "create", f"page-{n}", "free")
    codes = [row["tenant_code"] for row in said(api, "tenants", "list", "--tier", "free")]
    assert [code for code in codes if code.startswith("page-")] == [f"page-{n}" for n in range(5)]
    assert len(said(api, "tenants", "list", "--limit", "3")) == 3
    assert len(said(api, "tenants", "list", "--limit", "2")) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "nobody"], 1, 'tenant: tenant "nobody" does not exist'),
        (["create", "a b", "free"], 1, "tenant_code: "),
        (["create", "x", "gold"], 1, "tier: "),
        (["set-limits", "std_1", "max_qps=1"], 1, "Change the file, or create it here."),
        (["set-limits", "std_1", "max_qps"], 2, "is not KEY=VALUE"),
        (["set-limits", "std_1"], 2, "nothing is said"),
        (["set-limits", "std_1", "--expires", "soon"], 1, "expires_at: "),
        (["set-limits", "std_1", "max_qps=many"], 2, "neither a number nor none"),
        (["list", "--tier", "free", "--config", "x"], 2, "only --json goes with --config"),
    ],
)
def test_what_goes_wrong(api: Managed, arguments: list[str], code: int, message: str) -> None:
    result = run(api, "tenants", *arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr


def test_what_the_proxy_cannot_do_is_an_answer() -> None:
    def no_registry() -> None:
        raise remote.Refused({"status": 501, "detail": "there is no registry"})

    def no_worker() -> None:
        raise remote.Refused({"status": 503, "detail": "no worker serves"})

    assert (remote.run(no_registry), remote.run(no_worker)) == (1, 3)


def test_problems_as_json(api: Managed) -> None:
    result = run(api, "tenants", "show", "nobody", "--json")
    assert (result.exit_code, json.loads(result.stderr)["status"]) == (1, 404)


def test_who_may_not(api: Managed) -> None:
    assert run(api, "tenants", "delete", "std_1", role="viewer").exit_code == 1
    nobody = run(api, "tenants", "list", role="wrong")
    assert nobody.exit_code == 1
    assert "a valid bearer token is needed" in nobody.stderr
    assert "wrong" not in nobody.stderr


def test_the_shell_completes_names_and_words(api: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(words: str, role: str = "viewer") -> list[str]:
        environment = {
            "_TIERGATE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")),
            "TIERGATE_API_URL": f"http://127.0.0.1:{api.http_port}", "TIERGATE_API_TOKEN": TOKENS.get(role, role),
        }  # fmt: skip
        return CliRunner().invoke(main, prog_name="tiergate", env=environment).stdout.split()

    for code in ("complete-1", "complete-2", "other"):
        run(api, "tenants", "create", code, "free")
    assert completed("tiergate tenants show compl") == ["complete-1", "complete-2"]
    assert completed("tiergate tenants show compl", role="wrong") == []
    assert completed("tiergate tenants create x st") == ["standard"]
    assert completed("tiergate tenants create x free max_s") == ["max_storage_gb="]
    assert completed("tiergate tenants list --state s") == ["suspended"]
    assert completed("tiergate token new --role ten") == ["tenant-admin"]


def test_no_answer() -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "ftp://x", "nothing"):
        result = CliRunner().invoke(main, ["pools", "--url", url, "--token", "x"])
        assert result.exit_code == 3
        assert result.stderr.startswith(f"tiergate: {url}: ")


def test_pools(api: Managed) -> None:
    client = api.proxy.raw()
    client.query("SELECT 1")
    (pool,) = said(api, "pools", role="viewer")
    assert (pool["cluster"], pool["user"]) == ("shared", "app")
    assert " shared " in run(api, "pools").stdout
    client.close()


def test_top(api: Managed) -> None:
    client = api.proxy.raw()
    client.query("SELECT 1")
    result = run(api, "top", "--rounds", "2", "--interval", "0.05", "--json", role="viewer")
    for_people = run(api, "top", "--rounds", "1", "--interval", "0.05").stdout
    assert [line.split()[:3] for line in for_people.splitlines() if " std_1 " in line] == [
        ["std_1", "standard", "shared"]
    ]
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(told) == 2
    (row,) = [row for row in told[0]["tenants"] if row["tenant"] == "std_1"]
    assert row.items() >= {"tier": "standard", "cluster": "shared", "clients": 1, "queries/s": 0.0}.items()
    assert told[0]["total"]["workers"] == 1
    shown = run(api, "top", "--rounds", "1", "--interval", "0.05").stdout
    assert "workers 1" in shown
    assert "std_1" in shown
    client.close()
