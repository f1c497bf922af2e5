"""What operators may see: one function a view, plain rows out of the data plane's own objects.

PgBouncer's columns come first, with its names, where it has the view; ours follow.
"""

from collections.abc import Callable

from proxy.client.plane import Plane
from proxy.control.views import concurrency, inventory, queue, sockets, stores, traffic
from proxy.control.views.inventory import route
from proxy.control.views.process import WorkerRow, config, problems, workers
from proxy.control.views.sharing import FleetRow, fleet, shares
from proxy.control.views.view import Value, View

__all__ = [
    "AS_PGBOUNCER",
    "NAMES",
    "PGBOUNCER",
    "VIEWS",
    "FleetRow",
    "Value",
    "View",
    "WorkerRow",
    "config",
    "fleet",
    "problems",
    "route",
    "shares",
    "workers",
]

# SHOW name -> view, for those that need nothing but the data plane.
VIEWS: dict[str, Callable[[Plane], View]] = {
    "pools": traffic.pools,
    "clients": sockets.clients,
    "servers": sockets.servers,
    "sockets": sockets.sockets,
    "active_sockets": sockets.active_sockets,
    "databases": inventory.databases,
    "stats": traffic.stats,
    "stats_totals": traffic.stats_totals,
    "stats_averages": traffic.stats_averages,
    "totals": traffic.totals,
    "tenants": inventory.tenants,
    "tiers": inventory.tiers,
    "clusters": inventory.clusters,
    "users": inventory.users,
    "lists": inventory.lists,
    "peers": inventory.peers,
    "state": inventory.state,
    "registry": stores.registry,
    "queue": queue.queue,
    "concurrency": concurrency.concurrency,
}

# Those that its exporters read by PgBouncer's keys: one row a (database, user), one a database.
AS_PGBOUNCER: dict[str, Callable[[Plane], View]] = {
    "pools": traffic.pools_by_database_and_user,
    "stats": traffic.stats_by_database,
    "stats_totals": traffic.stats_totals_by_database,
    "stats_averages": traffic.stats_averages_by_database,
}

# How they are asked for: "pgbouncer.stats".
PGBOUNCER = "pgbouncer."
NAMES = frozenset(
    {*VIEWS, *(PGBOUNCER + name for name in AS_PGBOUNCER), "config", "fleet", "shares", "workers"}
)
