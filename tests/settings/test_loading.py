"""Whole configurations: the documents' examples, defaults, the environment, and all problems at once."""

# ruff: noqa: E501  a case of a table stays on one line

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.errors import ConfigError
from proxy.model import UNLIMITED, ClientOptions, PoolMode, ServerOptions
from proxy.settings import ProcessSettings, Settings, TlsSettings, keys, load, parse

BASE = """
[proxy]                              # process
listen_addr = "127.0.0.1"            # "*" for all
listen_port = 6432
unix_socket_dir = ""                 # "" = none
workers = 1                          # 0 = one a core
pool_mode = "transaction"            # session | transaction | statement
default_pool_size = 20
max_client_conn = 10000
max_prepared_statements = 200
query_wait_timeout = "120s"          # durations: 500ms, 30s, 5m, 1h; 0 = off
auth_type = "scram-sha-256"          # | md5 | plain | trust | cert | any of them a user
client_tls_sslmode = "disable"       # disable | allow | prefer | require | verify-ca | verify-full
server_tls_sslmode = "prefer"
tenant_guc = "app.tenant_id"
identify = ["startup", "user", "sni", "session"]
default_tenant = ""
admin_users = ["admin"]
http_addr = "127.0.0.1:9187"
redis_url = ""
registry_dsn = ""

[user.app]
password = "..."
tenants = "*"
server_user = ""

[cluster.shared]
kind = "shared"
coordinators = ["pg-coord-1:5432", "pg-coord-2:5432"]
dbname = ""
user = ""
password = ""
pool_size = 20
max_connections = 10000
"""

# The architecture document's chapter 2, as it stands.
CHAPTER_2 = """
[tenant.enterprise_001]
tier = "enterprise"

[tenant.enterprise_001.postgresql]
cluster_type = "dedicated"
primary.host = "pg-ent-001-master.internal"
read_replicas = [
    "pg-ent-001-replica-1.internal",
    "pg-ent-001-replica-2.internal",
    "pg-ent-001-replica-3.internal",
]
pool_size = 200
read_pool_size = 400

[tenant.enterprise_001.redis]
cluster_type = "dedicated"
hosts = [
    "redis-ent-001-master.internal",
    "redis-ent-001-slave-1.internal",
    "redis-ent-001-slave-2.internal",
]
max_memory = "64gb"

[tenant.enterprise_001.clickhouse]
cluster_type = "dedicated"
hosts = ["ch-ent-001-1.internal", "ch-ent-001-2.internal", "ch-ent-001-3.internal"]

[tier.vip]
pool_type = "shared_dedicated"
max_tenants = 100
default_shards = 4
auto_shard = true

[tenant.vip_001]
tier = "vip"
shard_id = 1

[tenant.vip_001.postgresql]
coordinator_hosts = ["pg-vip-coord-1", "pg-vip-coord-2"]
worker_shard = 1
pool_size = 200
cpu_quota = "30%"
memory_quota = "128gb"

[tenant.vip_001.redis]
cluster_hosts = ["redis-vip-master.internal", "redis-vip-slave-1.internal"]
dedicated_slots = 100
max_memory = "8gb"

[tier.standard]
pool_type = "shared"
max_tenants = 10000
auto_scale = true
min_shards = 10
max_shards = 50

[tenant.std_12345]
tier = "standard"
expected_data_size = "50gb"
expected_qps = 100

[tenant.std_12345.auto_scaling]
scale_up_qps_threshold = 500
scale_down_qps_threshold = 50
scale_up_data_threshold = "100gb"
rebalance_window = "02:00-06:00"  # 迁移时间段
"""


def good(text: str, **environ: str) -> Settings:
    return parse(text, "f.toml", environ)


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.toml", environ)
    assert caught.value.message == "\n".join(caught.value.problems)
    return [line.removeprefix("f.toml: ") for line in caught.value.problems]


def problem(text: str, **environ: str) -> str:
    found = problems(text, **environ)
    assert len(found) == 1, found
    return found[0]


def test_the_documents_examples_load_as_they_stand() -> None:
    settings = good(BASE + CHAPTER_2)
    tenants, clusters = settings.directory.tenants, settings.directory.clusters
    assert {t.name: t.cluster for t in tenants.values()} == {
        "enterprise_001": "enterprise_001",
        "vip_001": "vip-1",
        "std_12345": "shared",
    }
    assert [str(e) for e in clusters["vip-1"].endpoints] == ["pg-vip-coord-1:5432", "pg-vip-coord-2:5432"]
    assert clusters["enterprise_001"].pool_size == 200
    assert settings.directory.tiers["standard"].max_tenants == 10000
    assert settings.directory.users["app"].tenants is None


def test_what_has_no_effect_yet_is_kept() -> None:
    unused = good(BASE + CHAPTER_2).unused
    assert unused["tenant.vip_001.postgresql.cpu_quota"] == "30%"
    assert unused["tenant.std_12345.auto_scaling.rebalance_window"] == "02:00-06:00"
    assert "tier.vip.max_tenants" not in unused


def test_other_stores_are_kept_as_they_are_said() -> None:
    stores = good(BASE + CHAPTER_2 + '[tier.vip.kafka]\nhosts = ["kafka-1"]\n').directory.stores
    assert stores["tenant", "vip_001"]["redis"] == {
        "cluster_hosts": ["redis-vip-master.internal", "redis-vip-slave-1.internal"],
        "dedicated_slots": 100,
        "max_memory": "8gb",
    }
    assert stores["tier", "vip"] == {"kafka": {"hosts": ["kafka-1"]}}
    assert ("tenant", "std_12345") not in stores


def test_an_empty_file_is_all_defaults() -> None:
    settings = good("")
    assert settings.process == ProcessSettings()
    assert settings.tls == TlsSettings()
    assert settings.server == ServerOptions()
    assert settings.client == dataclasses.replace(
        ClientOptions(),
        limits=dataclasses.replace(UNLIMITED, query_wait_timeout=120.0, query_wait_notify=5.0, rate_wait=0.1),
    )
    assert settings.process.http == ("127.0.0.1", 9187)
    assert settings.process.shutdown_timeout == 60.0


def test_each_key_goes_where_it_belongs() -> None:
    settings = good("""
        [proxy]
        listen_port = 7000
        unix_socket_dir = "/tmp"
        unix_socket_mode = "0700"
        log_format = "json"
        pool_mode = "session"
        server_lifetime = "2h"
        max_client_conn = 5
        stats_users = "a, b"
        identify = ["user"]
        query_timeout = "30s"
        query_wait_timeout = 0
        limits = { max_connections = 5 }
        server_tls_sslmode = "require"
        http_addr = ""
    """)
    assert (settings.process.listen_port, settings.process.unix_socket_mode) == (7000, 0o700)
    assert (settings.process.log_format, settings.process.http) == ("json", None)
    assert (settings.server.pool_mode, settings.server.server_lifetime) == (PoolMode.SESSION, 7200.0)
    assert (settings.client.max_client_conn, settings.client.identify) == (5, ("user",))
    assert settings.client.stats_users == {"a", "b"}
    assert settings.client.limits.query_timeout == 30.0
    assert settings.client.limits.query_wait_timeout == 0.0
    assert settings.client.limits.max_connections == 5
    assert settings.tls.server_tls_sslmode == "require"


def test_every_problem_is_told_at_once() -> None:
    found = problems("""
        [proxi]
        [proxy]
        listen_prot = 1
        listen_port = "x"
        workers = -1
        redis_url = "redis://x"
        registry_dsn = "mysql://x"
        http_addr = "a:b:c/"
        query_timeout = 1
        limits = { query_timeout = 2 }
        [tenant.acme]
        tier = "vipp"
        max_conections = 3
        [user.u]
        passwort = "x"
    """)
    for start in (
        '[proxi]: unknown table; the nearest known one is "proxy"',
        '[proxy] listen_prot: unknown key; the nearest known one is "listen_port"',
        '[proxy] listen_port: must be a whole number from 0 to 65535, not "x"',
        "[proxy] workers: must be",
        "[proxy] registry_dsn: must begin with postgresql://",
        "[proxy] http_addr: must be a host",
        "[proxy.limits] query_timeout: [proxy] query_timeout says it as well",
        '[tenant.acme] tier: no tier is called "vipp"; the nearest known one is "vip"',
        '[tenant.acme] max_conections: unknown key; the nearest known one is "limits.max_connections"',
        '[user.u] passwort: unknown key; the nearest known one is "password"',
        "[user.u] password: missing",
    ):
        assert sum(line.startswith(start) for line in found) == 1, (start, found)
    assert len(found) == 11


def test_nothing_to_listen_on() -> None:
    assert "nothing would listen" in problem("[proxy]\nlisten_port = 0")
    good('[proxy]\nlisten_port = 0\nunix_socket_dir = "/tmp"')


def test_the_environment_goes_before_the_file() -> None:
    settings = good(
        "[proxy]\nlisten_port = 7000\npin_notice = true",
        TIERGATE_LISTEN_PORT="7001",
        TIERGATE_PIN_NOTICE="off",
        TIERGATE_ADMIN_USERS="root, dba",
        TIERGATE_QUERY_TIMEOUT="5m",
        LISTEN_PORT="1",
    )
    assert settings.process.listen_port == 7001
    assert settings.client.pin_notice is False
    assert settings.client.admin_users == {"root", "dba"}
    assert settings.client.limits.query_timeout == 300.0


def test_variables_that_kubernetes_makes_for_a_service_are_not_ours() -> None:
    good("", TIERGATE_PORT="tcp://10.0.0.1:6432", TIERGATE_SERVICE_HOST="10.0.0.1")


def test_a_wrong_variable_is_named() -> None:
    assert problem("", TIERGATE_LISTEN_PORT="many").startswith(
        "[environment TIERGATE_LISTEN_PORT] listen_port: must be a whole number from 0 to 65535"
    )


def test_overrides_are_what_set_says() -> None:
    text = '[proxy]\nquery_timeout = "1s"'
    settings = parse(text, "f.toml", {"TIERGATE_QUERY_TIMEOUT": "2s"}, {"query_timeout": "3s"})
    assert settings.client.limits.query_timeout == 3.0


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("query_timeuot", "1s", 'unknown key; the nearest known one is "query_timeout"'),
        ("listen_port", "1", "only a restart can change it"),
        ("query_timeout", "soon", "must be a duration"),
    ],
)
def test_an_override_that_cannot_be(key: str, value: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("", "f.toml", {}, {key: value})
    assert caught.value.problems[0].startswith(f"f.toml: [SET] {key}: {text}")


def test_passwords_come_from_the_environment() -> None:
    settings = good('[user.u]\npassword = "${PW}"', PW="hush")
    assert settings.directory.users["u"].password == "hush"


def test_not_toml() -> None:
    assert problem("[proxy\n").startswith("is not TOML: ")


def test_load_reads_the_file_and_the_given_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.toml"
    path.write_text("[proxy]\nlisten_port = 7000\n")
    assert load(str(path), {}).process.listen_port == 7000
    monkeypatch.setenv("TIERGATE_LISTEN_PORT", "7002")
    assert load(str(path)).process.listen_port == 7002
    assert load(str(path), {}).path == str(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope\.toml: cannot be read: No such file"):
        load(str(tmp_path / "nope.toml"), {})
    (tmp_path / "x.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(str(tmp_path / "x.toml"), {})


def test_secrets_do_not_show_in_a_repr() -> None:
    settings = good(
        '[user.u]\npassword = "hush"\nserver_password = "hush"\n[cluster.c]\nprimary="p"\npassword="hush"'
    )
    assert "hush" not in repr(settings)


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cert", "key", "ca"):
        (tmp_path / name).write_text(name)
    return tmp_path


def in_folder(folder: Path, text: str) -> Settings:
    return parse("[proxy]\n" + text, str(folder / "f.toml"))


def test_tls_files_are_found_beside_the_configuration(folder: Path) -> None:
    settings = in_folder(
        folder,
        """
        client_tls_sslmode = "verify-full"
        client_tls_cert_file = "cert"
        client_tls_key_file = "key"
        client_tls_ca_file = "ca"
        client_tls_protocols = ["tlsv1.3"]
        server_tls_sslmode = "verify-ca"
        server_tls_ca_file = "ca"
        auth_type = "cert"
        """,
    )
    assert settings.tls.client_tls_cert_file == str(folder / "cert")
    assert settings.tls.server_tls_ca_file == str(folder / "ca")
    assert settings.tls.client_tls_protocols == ("tlsv1.3",)
    assert settings.client.client_tls_sslmode == "verify-full"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('client_tls_sslmode = "require"', ["client_tls_cert_file: missing"]),
        ('client_tls_sslmode = "require"\nclient_tls_cert_file = "cert"', ["client_tls_key_file: missing"]),
        ('client_tls_sslmode = "prefer"\nclient_tls_cert_file = "no"\nclient_tls_key_file = "key"', ["client_tls_cert_file: there is no file"]),
        ('client_tls_sslmode = "verify-ca"\nclient_tls_cert_file = "cert"\nclient_tls_key_file = "key"', ["client_tls_ca_file: missing"]),
        ('server_tls_key_file = "key"', ["server_tls_cert_file: missing"]),
        ('server_tls_ca_file = "."', ["server_tls_ca_file: there is no file"]),
        ('auth_type = "cert"', ["client_tls_sslmode: auth_type"]),
        ('client_tls_sslmode = "on"', ["client_tls_sslmode: must be one of disable, allow"]),
        ('client_tls_protocols = "sslv3"', ['client_tls_protocols: "sslv3" is not one of secure']),
    ],
)  # fmt: skip
def test_tls_that_cannot_work(folder: Path, text: str, wanted: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        in_folder(folder, text)
    assert len(caught.value.problems) == len(wanted)
    for line, start in zip(caught.value.problems, wanted, strict=True):
        assert line.startswith(f"{folder / 'f.toml'}: [proxy] {start}")


# --- The examples --------------------------------------------------------------------------------

EXAMPLES = sorted((Path(__file__).parents[2] / "config").glob("*.toml"))


@pytest.mark.parametrize(
    "table", [keys.PROXY_TABLE, keys.LIMITS, keys.USER, keys.CLUSTER, keys.TIER, keys.TENANT]
)
def test_one_example_has_every_key(table: Mapping[str, object]) -> None:
    (path,) = [path for path in EXAMPLES if path.name == "tiergate.toml"]
    said = set(re.findall(r"\w+", path.read_text()))
    assert {key for key in table if not key.endswith("password_file")} <= said


def test_there_are_examples() -> None:
    assert {"minimal.toml", "tiergate.toml"} <= {path.name for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    settings = load(str(path), {})
    assert settings.directory.tenants
    for tenant in settings.directory.tenants.values():
        assert tenant.cluster in settings.directory.clusters


def test_a_registry_and_what_it_needs() -> None:
    found = good("""
        [proxy]
        registry_dsn = "postgresql://tiergate:secret@db/registry"
        redis_url = "redis://cache:6379/0"
        registry_cache_size = 500
        registry_ttl = "1m"
        registry_negative_ttl = "500ms"
        default_tenant = "stored"
        [user.app]
        password = "x"
        tenants = ["stored", "0B5A1D5E-6F0F-4F0E-9A53-0D5F2A1C7E01"]
    """)
    process = found.process
    assert (process.registry_cache_size, process.registry_ttl, process.registry_negative_ttl) == (
        500,
        60.0,
        0.5,
    )
    assert found.directory.users["app"].tenants == {"stored", "0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01"}
    for text, problem in {
        'redis_url = "redis://cache"': "[proxy] registry_dsn: missing; redis_url keeps copies",
        'registry_dsn = "host=db"': "[proxy] registry_dsn: must begin with postgresql://",
        'registry_dsn = "postgres://db/x"\nredis_url = "cache:6379"': "[proxy] redis_url: must begin with redis://",
        'registry_dsn = "postgres://db/x"\nregistry_ttl = 0': "[proxy] registry_ttl: must be more than 0",
    }.items():
        assert [line for line in problems("[proxy]\n" + text) if line.startswith(problem)], text


def test_a_fleet_that_shares_its_caps() -> None:
    """As many proxies as are said, or as are listed; a busy backend looks four times in a ttl whether its proxy is there."""
    said = good("""
        [proxy]
        redis_url = "redis://cache"
        fleet_size = 3
        fleet_reserve = 20
        fleet_ttl = "20s"
        fleet_name = "erp"
    """)
    process = said.process
    assert (process.fleet_size, process.fleet_reserve, process.fleet_ttl, process.fleet_name) == (
        3,
        20,
        20.0,
        "erp",
    )
    assert said.server.client_connection_check_interval == 5.0
    peers = """
        [proxy]
        registry_dsn = "postgres://db/x"
        peer_id = 2
        {}
        [peers]
        1 = "one"
        3 = "three"
    """
    assert good(peers.format('redis_url = "redis://cache"')).process.fleet_size == 3, "itself as well"
    alone = good(peers.format(""))
    assert (alone.process.fleet_size, alone.server.client_connection_check_interval) == (0, 0.0)
    for text, problem in {
        "fleet_size = 2": "[proxy] redis_url: missing; fleet_size proxies",
        "fleet_reserve = 101": "[proxy] fleet_reserve: ",
        "fleet_ttl = 0": "[proxy] fleet_ttl: must be at least 1s",
    }.items():
        assert [line for line in problems("[proxy]\n" + text) if line.startswith(problem)], text
