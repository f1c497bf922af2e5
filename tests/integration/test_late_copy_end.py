"""The end of a COPY that has failed may come together with the next BEGIN, which must not be lost for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.rawclient import COPY_DONE, query, sqlstates

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy


def test_a_block_begins_behind_the_end_of_a_failed_copy(
    start_proxy: StartProxy, shared: EmbeddedServer
) -> None:
    tables: dict[str, dict[str, Any]] = {
        "cluster.one": {"kind": "dedicated", "primary": f"{shared.host}:{shared.port}", "pool_size": 2},
        "tenant.one": {"tier": "enterprise", "cluster": "one"},
        "user.app": {"tenants": "*"},
    }
    client = start_proxy(tables, default_tenant="one").raw("app")
    client.checked(client.query("CREATE TEMP TABLE copied (n int)"))
    client.checked(client.ask(COPY_DONE + query("BEGIN")))
    client.checked(client.query("INSERT INTO copied VALUES (1)"))
    assert sqlstates(client.query("SAVEPOINT s")) == []
    client.checked(client.query("ROLLBACK"))
    assert client.value("SELECT count(*) FROM copied") == "0"
