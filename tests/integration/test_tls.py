"""TLS on both sides, in all sslmodes: with libpq, with direct TLS, with certificates, and against PostgreSQL 15."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests import rawclient
from tests.integration.servers import backends
from tests.rawclient import ServerError
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy
    from tests.integration.servers import Certificates, DebianServer

Tables = dict[str, dict[str, Any]]
MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def files(certificates: Certificates, **more: str) -> dict[str, str]:
    return {
        "client_tls_cert_file": certificates.server_cert, "client_tls_key_file": certificates.server_key, **more,
    }  # fmt: skip


def context(certificates: Certificates, *, alpn: bool = True, certificate: bool = False) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=certificates.ca)
    if alpn:
        found.set_alpn_protocols(["postgresql"])
    if certificate:
        found.load_cert_chain(certificates.client_cert, certificates.client_key)
    return found


def seen_tls(proxy: Proxy) -> set[str | None]:
    return {row["tls"] for row in proxy.console("SHOW CLIENTS")}


# --- clients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("theirs", MODES)
@pytest.mark.parametrize("ours", ["disable", "allow", "prefer", "require"])
def test_libpq_in_all_sslmodes(
    start_proxy: StartProxy, all_tiers: Tables, certificates: Certificates, ours: str, theirs: str
) -> None:
    if ours == "allow" and theirs not in ("disable", "prefer"):
        pytest.skip("as with prefer")
    proxy = start_proxy(
        all_tiers, **(files(certificates) if ours != "disable" else {}), client_tls_sslmode=ours
    )
    must_fail = (ours == "disable" and theirs in MODES[3:]) or (ours == "require" and theirs == "disable")
    more = {"sslmode": theirs, "sslrootcert": certificates.ca}
    if must_fail:
        with pytest.raises(psycopg.OperationalError):
            proxy.connect(**more)
        return
    with proxy.connect(**more) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        secure = ours == "require" or (ours != "disable" and theirs not in ("disable", "allow"))
        assert connection.pgconn.ssl_in_use is secure


def test_plain_text_is_refused_in_words_where_tls_is_required(
    start_proxy: StartProxy, all_tiers: Tables, certificates: Certificates
) -> None:
    proxy = start_proxy(all_tiers, **files(certificates), client_tls_sslmode="require")
    with pytest.raises(ServerError) as refused:
        proxy.raw()
    assert refused.value.sqlstate == "28000"
    client = proxy.unnamed()
    client.start_tls(context(certificates), "localhost")
    client.log_in("app@std_1", "appdb", "app-secret")
    assert client.value("SELECT 1") == "1"


@pytest.mark.parametrize("ours", ["verify-ca", "verify-full"])
def test_a_client_certificate_is_demanded(
    start_proxy: StartProxy, all_tiers: Tables, certificates: Certificates, ours: str
) -> None:
    proxy = start_proxy(
        all_tiers, **files(certificates, client_tls_ca_file=certificates.ca), client_tls_sslmode=ours
    )
    mine = {"sslmode": "verify-full", "sslrootcert": certificates.ca}
    good = {"sslcert": certificates.client_cert, "sslkey": certificates.client_key}
    with proxy.connect(**mine, **good) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        proxy.connect(**mine)
    with pytest.raises(psycopg.OperationalError):
        proxy.connect(**mine, sslcert=certificates.stranger_cert, sslkey=certificates.stranger_key)
    with pytest.raises(psycopg.OperationalError):
        proxy.connect(sslmode="verify-full", sslrootcert=certificates.stranger_ca, **good)


def test_cert_authentication(start_proxy: StartProxy, all_tiers: Tables, certificates: Certificates) -> None:
    proxy = start_proxy(
        all_tiers, **files(certificates, client_tls_ca_file=certificates.ca), client_tls_sslmode="verify-ca",
        auth_type="cert",
    )  # fmt: skip
    mine = {"sslmode": "require", "sslcert": certificates.client_cert, "sslkey": certificates.client_key}
    with proxy.connect("app@std_1", password="", **mine) as connection:
        assert connection.execute("SELECT current_user::text").fetchone() == ("app",)
    with pytest.raises(psycopg.OperationalError):
        proxy.connect("other@std_1", password="other-secret", **mine)


def test_direct_tls(start_proxy: StartProxy, all_tiers: Tables, certificates: Certificates) -> None:
    proxy = start_proxy(all_tiers, **files(certificates), client_tls_sslmode="prefer")
    client = proxy.unnamed()
    client.start_tls(context(certificates), "localhost", direct=True)
    assert isinstance(client.sock, ssl.SSLSocket)
    assert client.sock.selected_alpn_protocol() == "postgresql"
    client.log_in("app@std_1", "appdb", "app-secret")
    assert client.value("SELECT 1") == "1"
    assert seen_tls(proxy) == {"TLS"}
    without = proxy.unnamed()
    without.start_tls(context(certificates, alpn=False), "localhost", direct=True)
    without.send(rawclient.startup({"user": "app@std_1", "database": "appdb"}))
    assert without.read_to_eof() == []


def test_sni_names_the_tenant(start_proxy: StartProxy, certificates: Certificates, all_tiers: Tables) -> None:
    tables = all_tiers | {"tenant.acme": {"tier": "vip", "shard_id": 1}}
    proxy = start_proxy(tables, **files(certificates), client_tls_sslmode="require")
    client = proxy.unnamed()
    client.start_tls(context(certificates), "acme.tiergate.test")
    client.log_in("app", "appdb", "app-secret")
    assert client.rows("SELECT name, current_setting('app.tenant_id') FROM where_am_i") == [["vip", "acme"]]
    unknown = proxy.unnamed()
    unknown.start_tls(context(certificates), "nobody.tiergate.test")
    with pytest.raises(ServerError) as refused:
        unknown.log_in("app", "appdb", "app-secret").value("SELECT count(*) FROM items")
    assert refused.value.sqlstate == "42501"  # it has named nobody, and may choose


def test_a_cancel_under_tls(start_proxy: StartProxy, all_tiers: Tables, certificates: Certificates) -> None:
    proxy = start_proxy(all_tiers, **files(certificates), client_tls_sslmode="require")
    client = proxy.unnamed()
    client.start_tls(context(certificates), "localhost")
    client.log_in("app@std_1", "appdb", "app-secret")
    client.send(rawclient.query("SELECT pg_sleep(30)"))
    canceller = proxy.unnamed()
    canceller.start_tls(context(certificates), "localhost")
    canceller.send(rawclient.cancel_request(client.pid, client.key))
    canceller.read_to_eof()
    assert rawclient.sqlstates(client.read_ready()) == ["57014"]


def test_what_came_in_the_clear_is_not_taken_for_tls(
    start_proxy: StartProxy, all_tiers: Tables, certificates: Certificates
) -> None:
    proxy = start_proxy(all_tiers, **files(certificates), client_tls_sslmode="prefer")
    client = proxy.unnamed()
    client.send(rawclient.SSL_REQUEST + rawclient.startup({"user": "app@std_1", "database": "appdb"}))
    assert client.read_exactly(1) == b"S"
    with pytest.raises((ssl.SSLError, OSError)):
        client.sock = context(certificates).wrap_socket(client.sock, server_hostname="localhost")
    assert proxy.raw().value("SELECT 1") == "1"


# --- servers ----------------------------------------------------------------------------------------


def to_tls(server: DebianServer, host: str = "127.0.0.1") -> Tables:
    return {
        "cluster.shared": {"kind": "shared", "primary": f"{host}:{server.port}"},
        "tenant.std_1": {"tier": "standard"},
        "user.app": {"password": "app-secret", "tenants": "*"},
        "user.admin": {"password": "admin-secret"},
    }


IN_USE = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.mark.parametrize("mode", ["allow", "prefer", "require", "verify-ca", "verify-full"])
def test_a_server_with_tls(
    start_proxy: StartProxy, tls_server: DebianServer, certificates: Certificates, mode: str
) -> None:
    proxy = start_proxy(to_tls(tls_server), server_tls_sslmode=mode, server_tls_ca_file=certificates.ca)
    client = proxy.raw()
    assert client.value(IN_USE) == "true"
    assert client.value(f"SELECT length(repeat('x', {3 << 20}))") == str(3 << 20)
    (server,) = proxy.console("SHOW SERVERS")
    assert server["tls"] == "TLS"
    client.send(rawclient.query("SELECT pg_sleep(30)"))
    wait_until(lambda: backends(tls_server, "state = 'active' AND query = 'SELECT pg_sleep(30)'"))
    rawclient.send_cancel(proxy.port, client.pid, client.key)
    assert rawclient.sqlstates(client.read_ready()) == ["57014"]


def test_a_server_that_wants_tls_says_so_to_who_has_disabled_it(
    start_proxy: StartProxy, tls_server: DebianServer
) -> None:
    proxy = start_proxy(to_tls(tls_server), server_tls_sslmode="disable")
    with pytest.raises(ServerError) as refused:
        proxy.raw()
    assert refused.value.sqlstate == "28000"
    assert "pg_hba.conf" in refused.value.message


def test_plain_text_where_the_server_wants_it(start_proxy: StartProxy, tls_server: DebianServer) -> None:
    with psycopg.connect(
        host=tls_server.host, port=tls_server.port, user="postgres", dbname="postgres", autocommit=True
    ) as direct:
        direct.execute("DROP DATABASE IF EXISTS plaindb")
        direct.execute("CREATE DATABASE plaindb")
    proxy = start_proxy(to_tls(tls_server), server_tls_sslmode="disable")
    assert proxy.raw(database="plaindb").value(IN_USE) == "false"


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_a_strangers_authority_is_refused(
    start_proxy: StartProxy, tls_server: DebianServer, certificates: Certificates, mode: str
) -> None:
    proxy = start_proxy(
        to_tls(tls_server), server_tls_sslmode=mode, server_tls_ca_file=certificates.stranger_ca
    )
    with pytest.raises(ServerError) as refused:
        proxy.raw()
    assert refused.value.sqlstate in ("08006", "57P03")


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_a_server_without_tls_is_refused(
    start_proxy: StartProxy, shared: EmbeddedServer, certificates: Certificates, mode: str
) -> None:
    tables = {"cluster.shared": {"kind": "shared", "primary": f"127.0.0.1:{shared.port}"}}
    tables |= {"tenant.std_1": {"tier": "standard"}, "user.app": {"tenants": "*"}, "user.admin": {}}
    proxy = start_proxy(tables, server_tls_sslmode=mode, server_tls_ca_file=certificates.ca)
    with pytest.raises(ServerError) as refused:
        proxy.raw()
    assert refused.value.sqlstate in ("08006", "57P03")


def test_verify_full_wants_the_name(
    start_proxy: StartProxy, tls_server: DebianServer, certificates: Certificates
) -> None:
    proxy = start_proxy(
        to_tls(tls_server, "127.0.0.2"), server_tls_sslmode="verify-full", server_tls_ca_file=certificates.ca
    )
    with pytest.raises(ServerError) as refused:
        proxy.raw()
    assert refused.value.sqlstate in ("08006", "57P03")


def test_a_certificate_for_the_server(
    start_proxy: StartProxy, tls_server: DebianServer, certificates: Certificates
) -> None:
    with psycopg.connect(
        host=tls_server.host, port=tls_server.port, user="postgres", dbname="postgres", autocommit=True
    ) as direct:
        direct.execute("DROP DATABASE IF EXISTS certdb")
        direct.execute("CREATE DATABASE certdb")
    keys = {"server_tls_cert_file": certificates.client_cert, "server_tls_key_file": certificates.client_key}
    proxy = start_proxy(to_tls(tls_server), server_tls_sslmode="require", **keys)
    assert proxy.raw(database="certdb").value("SELECT current_user::text") == "app"
    without = start_proxy(to_tls(tls_server), server_tls_sslmode="require")
    with pytest.raises(ServerError) as refused:
        without.raw(database="certdb")
    assert refused.value.sqlstate == "28000"
