"""Clusters: those that are configured, and those that the tenants' own [postgresql] tables describe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from proxy.model import ClientOptions, Cluster, ClusterKind, Endpoint, PoolMode, Role, ServerOptions, Tier
from proxy.settings import passwords
from proxy.settings.lookups import read_auth
from proxy.settings.reader import Reader, dotted, suggestion
from proxy.settings.seals import read_seal

Addresses = tuple[tuple[str, int], ...]


def _endpoints(role: Role, addresses: Addresses) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(host, port, role) for host, port in addresses)


class Clusters:
    """All clusters by name. `for_tenant` says where a tenant lives and adds the cluster it describes."""

    def __init__(self, reader: Reader, options: ServerOptions, client: ClientOptions) -> None:
        self.by_name: dict[str, Cluster] = {}
        self._reader = reader
        self._options = options
        self._client = client
        self._described_in: dict[str, str] = {}
        self._shared: list[str] = []

    def configure(self, name: str, said: dict[str, Any]) -> None:
        where = dotted("cluster", name)
        primary, coordinators = said.get("primary"), said.get("coordinators", ())
        if primary and coordinators:
            self._reader.problem(where, "primary", "a cluster has a primary or coordinators, not both")
        elif not primary and not coordinators:
            self._reader.missing(where, "", "needs primary or coordinators", "primary", "coordinators")
        if coordinators and said.get("replicas"):
            self._reader.problem(where, "replicas", "only a cluster with a primary has replicas")
        kind = said.get("kind") or (ClusterKind.DEDICATED if primary else ClusterKind.SHARED)
        if kind is ClusterKind.DEDICATED and coordinators:
            self._reader.problem(where, "coordinators", 'a cluster of kind "dedicated" has a primary instead')
        endpoints = (
            _endpoints(Role.PRIMARY, (primary,) if primary else ())
            + _endpoints(Role.REPLICA, said.get("replicas", ()))
            + _endpoints(Role.COORDINATOR, coordinators)
        )
        password = self._reader.secret(said, "password", where)
        cluster = self._make(where, name, kind, endpoints, said, password, said.get("max_connections", 0))
        cluster = self._adaptive(where, cluster, said)
        seal = read_seal(self._reader, said, where, self._options, self._client)
        if seal is not None and seal.keys_file:
            for other in self.by_name.values():
                if other.seal is not None and other.seal.keys_file == seal.keys_file:
                    # A rotation must know every server that has to have the key.
                    self._reader.problem(
                        where, "seal_keys_file", f'is also the file of cluster "{other.name}"'
                    )
        storage_user: str = said.get("storage_user", "")
        storage_password = self._reader.secret(said, "storage_password", where)
        wrong = passwords.malformed(storage_password) or passwords.useless_for_server(storage_password)
        if wrong:
            self._reader.problem(where, "storage_password", wrong)
        asked = replace(cluster, storage_user=storage_user, storage_password=storage_password)
        self._add(where, replace(asked, seal=seal))
        if kind is ClusterKind.SHARED:
            self._shared.append(name)

    def _adaptive(self, where: str, cluster: Cluster, said: dict[str, Any]) -> Cluster:
        adaptive: bool = said.get("adaptive_concurrency", False)
        if adaptive and not cluster.max_connections:
            self._reader.problem(where, "adaptive_concurrency", "needs max_connections, which it lowers")
        lowest = said.get("min_concurrency", cluster.min_concurrency)
        if "min_concurrency" in said and 0 < cluster.max_connections < lowest:
            self._reader.problem(
                where, "min_concurrency", f"is {lowest}, more than max_connections, {cluster.max_connections}"
            )
        return replace(cluster, adaptive_concurrency=adaptive, min_concurrency=lowest)

    def for_tenant(self, name: str, where: str, said: dict[str, Any], tier: Tier) -> tuple[str, str]:
        """The cluster of the tenant whose table is `where`, and why; the name is "" where a problem says why."""
        postgresql: dict[str, Any] = said.get("postgresql", {})
        describes = self._describes(f"{where}.postgresql", postgresql)
        if wanted := said.get("cluster"):
            if describes:
                self._reader.problem(
                    where, "cluster", f"postgresql.{describes} describes another cluster; keep one of them"
                )
            return self._configured(wanted, where, "cluster"), f"[{where}] cluster"
        shard: int | None = said.get("shard_id")
        if describes == "primary":
            return self._dedicated(name, postgresql), f"[{where}.postgresql] primary"
        if describes == "coordinator_hosts":
            own = "" if shard is None else f", shard_id = {shard}"
            return self._coordinated(name, shard, postgresql), f"[{where}.postgresql] coordinator_hosts{own}"
        if shard is not None:
            return self._configured(f"vip-{shard}", where, "shard_id"), f"[{where}] shard_id = {shard}"
        if tier.cluster:
            # Whether it exists is said once, at the tier.
            return tier.cluster, f"[{dotted('tier', tier.name)}] cluster"
        return self._only_shared(where, tier), f"the only shared cluster, for tier {tier.name}"

    def pool_size_is_shared(self, cluster: str) -> bool:
        found = self.by_name.get(cluster)
        return found is not None and found.kind is not ClusterKind.DEDICATED

    def configured_or_problem(self, name: str, where: str) -> None:
        self._configured(name, where, "cluster")

    def _configured(self, name: str, where: str, key: str) -> str:
        if name in self.by_name:
            return name
        text = f'no cluster is called "{name}"' + suggestion(name, self.by_name)
        if key == "shard_id":
            text += "; configure it as [cluster." + name + "] or give postgresql.coordinator_hosts"
        self._reader.problem(where, key, text)
        return ""

    def _describes(self, where: str, postgresql: dict[str, Any]) -> str:
        primary, coordinators = postgresql.get("primary"), postgresql.get("coordinator_hosts")
        cluster_type = postgresql.get("cluster_type", "")
        if primary and coordinators:
            self._reader.problem(where, "primary", "a cluster has a primary or coordinator_hosts, not both")
        elif cluster_type == "dedicated" and not primary:
            self._reader.missing(where, "cluster_type", '"dedicated" needs primary.host', "primary")
        elif cluster_type not in ("", "dedicated") and primary:
            self._reader.problem(
                where, "cluster_type", f'"{cluster_type}" has no primary; "dedicated" has one'
            )
        elif postgresql.get("read_replicas") and not primary:
            self._reader.missing(where, "read_replicas", "replicas need primary.host", "primary")
        return "primary" if primary else "coordinator_hosts" if coordinators else ""

    def _dedicated(self, name: str, said: dict[str, Any]) -> str:
        where = dotted("tenant", name, "postgresql")
        endpoints = _endpoints(Role.PRIMARY, (said["primary"],)) + _endpoints(
            Role.REPLICA, said.get("read_replicas", ())
        )
        return self._own(where, name, ClusterKind.DEDICATED, endpoints, said)

    def _coordinated(self, name: str, shard: int | None, said: dict[str, Any]) -> str:
        where = dotted("tenant", name, "postgresql")
        endpoints = _endpoints(Role.COORDINATOR, said["coordinator_hosts"])
        if shard is None:
            return self._own(where, name, ClusterKind.VIP, endpoints, said)
        shared = f"vip-{shard}"
        there = self.by_name.get(shared)
        if there is None:
            return self._own(where, shared, ClusterKind.VIP, endpoints, said)
        first = self._described_in[shared]
        if set(there.endpoints) != set(endpoints):
            self._reader.problem(
                where,
                "coordinator_hosts",
                f"shard {shard} is {_hosts(endpoints)} here and {_hosts(there.endpoints)} in [{first}]",
            )
        for key in ("dbname", "user", "auth_user"):
            if said.get(key) and said[key] != getattr(there, key):
                self._reader.problem(
                    where, key, f'shard {shard} has "{getattr(there, key)}" in [{first}], not "{said[key]}"'
                )
        if not first.startswith("cluster.") and said.get("pool_size", 0) > there.pool_size:
            # Each tenant is held to its own share by its limits; the pool must fit the largest.
            self.by_name[shared] = replace(there, pool_size=said["pool_size"])
        return shared

    def _own(
        self, where: str, name: str, kind: ClusterKind, endpoints: tuple[Endpoint, ...], said: dict[str, Any]
    ) -> str:
        if name in self.by_name:
            self._reader.problem(
                where, "", f'describes cluster "{name}", which [{self._described_in[name]}] already is'
            )
            return name
        password = self._reader.secret(said, "password", where)
        self._add(where, self._make(where, name, kind, endpoints, said, password, 0))
        return name

    def _make(
        self,
        where: str,
        name: str,
        kind: ClusterKind,
        endpoints: tuple[Endpoint, ...],
        said: dict[str, Any],
        password: str,
        max_connections: int,
    ) -> Cluster:
        pool_mode: PoolMode | None = said.get("pool_mode")
        made = Cluster(
            name=name,
            kind=kind,
            endpoints=endpoints,
            dbname=said.get("dbname", ""),
            user=said.get("user", ""),
            password=password,
            pool_size=said.get("pool_size", self._options.default_pool_size),
            min_pool_size=said.get("min_pool_size", self._options.min_pool_size),
            max_connections=max_connections,
            pool_mode=pool_mode,
            read_pool_size=said.get("read_pool_size", 0),
        )
        return read_auth(self._reader, said, where, made, self._options)

    def _add(self, where: str, cluster: Cluster) -> None:
        seen: set[tuple[str, int]] = set()
        for endpoint in cluster.endpoints:
            if endpoint[:2] in seen:
                self._reader.problem(where, "", f"names {endpoint} twice")
            seen.add(endpoint[:2])
        if cluster.min_pool_size > cluster.pool_size:
            self._reader.problem(
                where,
                "min_pool_size",
                f"is {cluster.min_pool_size}, more than the pool_size {cluster.pool_size}",
            )
        wrong = passwords.malformed(cluster.password) or passwords.useless_for_server(cluster.password)
        if wrong:
            self._reader.problem(where, "password", wrong)
        self.by_name[cluster.name] = cluster
        self._described_in[cluster.name] = where

    def _only_shared(self, where: str, tier: Tier) -> str:
        if tier.name == "enterprise":
            text = "an enterprise tenant needs postgresql.primary.host or cluster"
        elif tier.name == "vip":
            text = "a vip tenant needs shard_id, postgresql.coordinator_hosts or cluster"
        elif len(self._shared) == 1:
            return self._shared[0]
        elif self._shared:
            several = ", ".join(self._shared)
            text = f"needs cluster, here or in [tier.{tier.name}]: there are several shared ones ({several})"
        else:
            text = f"has nowhere to live: give it or [tier.{tier.name}] a cluster, or configure a shared one"
        if not self._reader.refused(f"{where}.postgresql", "primary", "coordinator_hosts"):
            self._reader.missing(where, "", text, "cluster", "shard_id")
        return ""


def _hosts(endpoints: tuple[Endpoint, ...]) -> str:
    return ", ".join(str(endpoint) for endpoint in endpoints)
