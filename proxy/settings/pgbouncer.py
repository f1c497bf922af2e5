"""PgBouncer's keys and sections that are not here: what stands in their place, for those who bring them along."""

from __future__ import annotations

_LOG = "the log goes to standard error, as much of it as log_level says"
_DNS = "names are looked up whenever a connection is opened"
_FOLLOWS = "nothing is lost: parameters follow their session by themselves"

INSTEAD: dict[str, str] = {
    "pgbouncer": "what is said there belongs to [proxy]",
    "databases": "servers are [cluster.NAME] tables, and who lives there [tenant.NAME] tables",
    "users": "each is a table [user.NAME]",
    "auth_file": "users are [user.NAME] tables, whose password takes what userlist.txt has",
    "auth_hba_file": "a [user.NAME] has an auth_type and its tenants; leave addresses to a firewall",
    "max_db_connections": "a [cluster.NAME] has max_connections",
    "max_db_client_connections": "a [tenant.NAME] has limits = { max_client_connections }",
    "max_user_connections": "a [user.NAME] has limits = { max_connections }",
    "max_user_client_connections": "a [user.NAME] has limits = { max_client_connections }",
    "reserve_pool_size": "who waits takes turns, and limits have guaranteed_connections",
    "reserve_pool_timeout": "who waits takes turns, and limits have guaranteed_connections",
    "autodb_idle_timeout": "pool_idle_timeout is for all pools",
    "ignore_startup_parameters": _FOLLOWS,
    "track_extra_parameters": _FOLLOWS,
    "server_reset_query_always": _FOLLOWS,
    "server_fast_close": "RECONNECT waits for the transaction, in session mode for the client",
    "server_round_robin": "the connection that was used last goes first",
    "disable_pqexec": "a tier or a tenant has max_statements = 1",
    "so_reuseport": "workers = N is several processes on one port",
    "unix_socket_group": "unix_socket_mode, and the group of the directory",
    "user": "start it as that user",
    "logfile": _LOG,
    "syslog": _LOG,
    "verbose": _LOG,
    "log_connections": _LOG,
    "log_disconnections": _LOG,
    "log_pooler_errors": _LOG,
    "log_stats": "/metrics and SHOW STATS tell it",
    "dns_max_ttl": _DNS,
    "dns_nxdomain_ttl": _DNS,
    "dns_zone_check_period": _DNS,
    "resolv_conf": _DNS,
    "suspend_timeout": "upgrades are in place, by SIGUSR2",
}
