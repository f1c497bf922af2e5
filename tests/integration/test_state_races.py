"""A change of session state that fails never lets what follows it run in somebody else's state."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.wire import encode
from tests.integration import servers
from tests.rawclient import send_cancel

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.integration.running import Proxy


def test_a_cancel_that_comes_at_once_never_lets_a_statement_run_as_the_tenant_before(
    shared: EmbeddedServer, start_proxy: Callable[..., Proxy]
) -> None:
    proxy = start_proxy(
        {
            "cluster.shared": {"kind": "shared", "coordinators": [f"{shared.host}:{shared.port}"], "pool_size": 1},
            "tenant.std_1": {"tier": "standard"},
            "tenant.std_2": {"tier": "standard"},
            "user.app": {"password": servers.APP_PASSWORD, "auth_type": "trust", "tenants": "*"},
        }
    )
    with servers.connect(shared) as direct:
        direct.execute("CREATE TABLE marks (tenant text, said_by text)")
        direct.execute("GRANT ALL ON marks TO app")
    try:
        victim = proxy.raw(user="app", database=servers.DATABASE, parameters={"app.tenant_id": "std_1"})
        attacker = proxy.raw(user="app", database=servers.DATABASE, parameters={"app.tenant_id": "std_2"})
        insert = encode.query(b"INSERT INTO marks VALUES (current_setting('app.tenant_id'), 'std_2')")
        for _ in range(150):
            victim.send(encode.query(b"SELECT 1"))
            victim.read_ready()
            attacker.send(insert)
            send_cancel(proxy.port, attacker.pid, attacker.key)
            attacker.read_ready()
        with servers.connect(shared) as direct:
            rows = dict(direct.execute("SELECT tenant, count(*) FROM marks GROUP BY 1").fetchall())
        assert rows.keys() == {"std_2"}
        assert rows["std_2"] > 0
    finally:
        with servers.connect(shared) as direct:
            direct.execute("DROP TABLE marks")
