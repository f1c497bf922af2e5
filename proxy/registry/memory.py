"""The registry in memory: the file's directory, the rows that are known, and who is disabled. Answers are dict
look-ups; `find` alone may wait, where somebody is to be asked first.

A row goes before the file's tenant of the same name. A session keeps what it was told until its tenant is told
anew (`take`), and whoever holds the sessions is told the names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from time import monotonic, time
from typing import Literal, Protocol

from proxy.errors import NoHealthyEndpoint
from proxy.model import (
    NO_POLICY,
    UNLIMITED,
    ClientOptions,
    Cluster,
    ClusterKind,
    Directory,
    Limits,
    ServerOptions,
    Tenant,
    Tier,
    User,
)
from proxy.registry.cache import Cache
from proxy.registry.rows import Home, Row, UnusableRow, home
from proxy.registry.sources import StoreState
from proxy.sql.policy import Rules

Kind = Literal["tenant", "cluster"]
OLD = -1  # an epoch that no registry ever has


class RegistryDown(NoHealthyEndpoint):
    """A tenant that is not known cannot be looked up: it may exist."""

    def __init__(self, name: str, internal: str = "") -> None:
        super().__init__(
            f'tenant "{name}" cannot be looked up now', hint="Try again in a few seconds.", internal=internal
        )


class UserUnknown(NoHealthyEndpoint):
    """A user that may be stored, and that nobody could be asked about."""

    def __init__(self, name: str) -> None:
        super().__init__(f'user "{name}" cannot be looked up now', hint="Try again in a few seconds.")


class Logins(Protocol):
    """Users that are stored elsewhere."""

    def get(self, name: str) -> User | None:
        """As it was found last."""

    async def find(self, name: str) -> None:
        """Raises UserUnknown."""


class RoleLogins(Protocol):
    """Users that only their tenant's servers know."""

    def get(self, name: str) -> User | None:
        """As it was found last."""

    async def find(self, role: str, tenant: Tenant) -> User | None:
        """As its servers have it now. Raises UserUnknown."""


class Finder(Protocol):
    """Who asks where tenants are stored."""

    @property
    def up(self) -> bool:
        """It is worth waiting for an answer."""

    def stores(self) -> list[StoreState]:
        """How the stores are, in the order in which they are asked."""

    async def find(self, name_or_id: str) -> None:
        """Has what is stored put into the cache, or that nobody could be asked."""


class Registry:
    """`epoch` grows with every change of all, so that whoever keeps an answer can see that it is old.

    `rows` are what is known of a store of tenants besides the file, None where there is none.
    """

    def __init__(
        self,
        directory: Directory,
        client_options: ClientOptions,
        server_options: ServerOptions | None = None,
        rows: Cache | None = None,
    ) -> None:
        self.epoch = 0
        self.rows = rows
        self.finder: Finder | None = None
        self.logins: Logins | None = None
        self.roles: RoleLogins | None = None
        self._disabled: dict[Kind, set[str]] = {"tenant": set(), "cluster": set()}
        self._take(directory, client_options, server_options or ServerOptions())

    def _take(self, directory: Directory, client_options: ClientOptions, options: ServerOptions) -> None:
        self._directory = directory
        self._options = options
        self._asks_clusters = bool(options.auth_user) or any(c.auth_user for c in directory.clusters.values())
        self._base = client_options.limits.over(UNLIMITED)
        self._lives = Counter(tenant.cluster for tenant in directory.tenants.values())
        self._by_id = {tenant.id: tenant for tenant in directory.tenants.values() if tenant.id}
        self._limits: dict[str, dict[str, Limits]] = {}
        self._rules: dict[tuple[str, str], Rules | None] = {}

    def replace(
        self, directory: Directory, client_options: ClientOptions, server_options: ServerOptions | None = None
    ) -> None:
        """Take a new snapshot. What was disabled by hand stays so until it is enabled or gone."""
        self._take(directory, client_options, server_options or self._options)
        if self.rows is None:
            self._disabled["tenant"] &= directory.tenants.keys()
        else:
            self.rows.reconfigured(self._home)
        self._disabled["cluster"] &= directory.clusters.keys()
        self.epoch += 1

    # --- what is stored elsewhere ---------------------------------------------------------------------

    def _home(self, row: Row) -> Home:
        """A row that cannot be served is a tenant without a cluster."""
        if row.expires_at is not None and row.expires_at <= time():
            row = replace(row, active=False)
        try:
            return home(row, self._directory, self._options)
        except UnusableRow as error:
            tenant = Tenant(
                row.tenant_code, row.tier, "", row.tenant_id, active=row.active, placement=error.internal
            )
            return Home(tenant, None)

    def take(self, row: Row) -> bool:
        """What is stored now. True if that changes what was known."""
        if self.rows is None:
            return False
        old = self.rows.find(row.tenant_code)
        now = self._home(row)
        if old is not None and old.home == now:
            now = old.home  # whoever has that tenant still has the right one
        self.rows.put(row, now, monotonic())
        self._limits.pop(row.tenant_code, None)
        return old is None or old.home is not now

    def take_absence(self, name: str) -> bool:
        """It is stored no more, or never was. True if that changes what was known."""
        if self.rows is None:
            return False
        old = self.rows.find(name)
        self.rows.put_absent(name, monotonic())
        if old is not None:
            self._limits.pop(old.tenant.name, None)
        return old is not None

    def settled(self, name_or_id: str) -> bool:
        """`known` has the answer; False: `find` it."""
        if self.rows is None or self.finder is None or self.rows.settled(name_or_id, monotonic()):
            return True
        return not self.finder.up and self.known(name_or_id) is not None

    def holds(self, tenant: Tenant | None) -> bool:
        """It is what would be found, and nobody needs to be asked."""
        if self.rows is None or tenant is None or not tenant.name:
            return True
        return self.settled(tenant.name) and self.known(tenant.name) is tenant

    def unasked(self, name_or_id: str) -> bool:
        """It is not known, and nobody could be asked."""
        return self.rows is not None and self.rows.unasked(name_or_id) and self.known(name_or_id) is None

    def ended(self, name: str) -> str:
        """Why a tenant that was served is served no more; "" where it still is."""
        tenant = self.known(name)
        if tenant is None:
            return "has been deleted"
        if tenant.active:
            return "has been suspended" if self.is_disabled("tenant", name) else ""
        entry = self.rows.find(name) if self.rows is not None else None
        return "has expired" if entry is not None and entry.row.active else "has been suspended"

    # --- tenants --------------------------------------------------------------------------------------

    async def find(self, name_or_id: str) -> Tenant | None:
        """Raises RegistryDown where it is not known and nobody can be asked."""
        if self.finder is not None and not self.settled(name_or_id):
            await self.finder.find(name_or_id)
        if self.unasked(name_or_id):
            raise RegistryDown(name_or_id)
        return self.known(name_or_id)

    def known(self, name_or_id: str) -> Tenant | None:
        """A name goes before an id; ids compare without regard to case, as UUIDs do."""
        if self.rows is not None:
            entry = self.rows.find(name_or_id)
            if entry is not None:
                return entry.tenant
        found = self._directory.tenants.get(name_or_id)
        if found is None:
            found = self._by_id.get(name_or_id.lower())
            if found is not None and self.rows is not None:
                entry = self.rows.find(found.name)
                return entry.tenant if entry is not None else found
        return found

    def tenants(self) -> Iterable[Tenant]:
        if self.rows is None:
            return self._directory.tenants.values()
        return {
            **self._directory.tenants,
            **{entry.tenant.name: entry.tenant for entry in self.rows},
        }.values()

    @property
    def configured(self) -> int:
        """How many tenants the file has."""
        return len(self._directory.tenants)

    # --- everything else ------------------------------------------------------------------------------

    def tier(self, name: str) -> Tier | None:
        return self._directory.tiers.get(name)

    def cluster(self, name: str) -> Cluster | None:
        found = self._directory.clusters.get(name)
        return self.rows.cluster(name) if found is None and self.rows is not None else found

    def lobby(self) -> str:
        """The cluster that answers those who have chosen no tenant, about themselves only: a shared one if there is
        any. "" where there is no cluster."""
        clusters = self._directory.clusters.values()
        order = (ClusterKind.SHARED, ClusterKind.VIP, ClusterKind.DEDICATED)
        able = [c for c in clusters if c.name not in self._disabled["cluster"]]
        return min(able, key=lambda cluster: order.index(cluster.kind)).name if able else ""

    def lives_alone(self, cluster: Cluster) -> bool:
        """Whoever is served there has all of it: it is a dedicated one, and not more than one tenant's. Of tenants that
        are stored elsewhere nobody knows where all of them live."""
        return self.rows is None and cluster.kind is ClusterKind.DEDICATED and self._lives[cluster.name] <= 1

    def user(self, name: str) -> User | None:
        found = self._directory.users.get(name)
        if found is None and self.logins is not None:
            found = self.logins.get(name)
        if found is None and self.roles is not None:
            found = self.roles.get(name)
        return found

    def has_user(self, name: str) -> bool:
        """The file has it."""
        return name in self._directory.users

    def is_foreign(self, name: str) -> bool:
        """The file has none of that name, so that it is to be looked up first who that is, if anybody can be asked."""
        if not name or self.may_be_stored(name):
            return bool(name)
        users = self._directory.users
        return self.asks_clusters and not (name in users or name.rpartition("@")[0] in users)

    @property
    def asks_clusters(self) -> bool:
        return self._asks_clusters and self.roles is not None

    def is_of_several(self, cluster: Cluster) -> bool:
        """Others than the tenant that is asked about may live there."""
        if cluster.kind is not ClusterKind.DEDICATED or self._lives[cluster.name] > 1:
            return True
        return self.rows is not None and cluster.name in self._directory.clusters

    def may_be_stored(self, user: str) -> bool:
        """A login of that name is to be looked up first (`logins`). What the file says of a name goes before."""
        if (
            self.logins is None
            or "@" not in user
            or "\0" in user
            or any("\ud800" <= c <= "\udfff" for c in user)
        ):
            return False
        users = self._directory.users
        return user not in users and user.rpartition("@")[0] not in users

    def tiers(self) -> Iterable[Tier]:
        return self._directory.tiers.values()

    def clusters(self) -> Iterable[Cluster]:
        if self.rows is None:
            return self._directory.clusters.values()
        return [*self._directory.clusters.values(), *self.rows.clusters()]

    def users(self) -> Iterable[User]:
        return self._directory.users.values()

    def limits(self, tenant: Tenant, user: User | None = None) -> Limits:
        """The effective limits, none of them None: user over tenant over tier over proxy.

        A tenant or user of an older snapshot gets the limits of today, as long as its name exists.
        """
        of_tenant = self._limits.setdefault(tenant.name, {})
        who = user.name if user is not None else ""
        limits = of_tenant.get(who)
        if limits is None:
            tenant = self.known(tenant.name) or tenant
            tier = self._directory.tiers.get(tenant.tier)
            limits = tenant.limits.over(tier.limits.over(self._base) if tier is not None else self._base)
            if user is not None:
                limits = (self.user(user.name) or user).limits.over(limits)
            of_tenant[who] = limits
        return limits

    def trim(self) -> None:
        """Forgets what was worked out for tenants that are not known any more."""
        if self.rows is not None and len(self._limits) > 2 * (len(self.rows) + len(self._directory.tenants)):
            self._limits = {name: limits for name, limits in self._limits.items() if self.known(name)}

    def rules(self, tenant: Tenant) -> Rules | None:
        """What SQL the tenant may send; None: any."""
        tenant = self.known(tenant.name) or tenant
        # Tenants that say nothing of their own share those of their tier.
        key = (tenant.tier, "" if tenant.policy == NO_POLICY else tenant.name)
        if key not in self._rules:
            tier = self._directory.tiers.get(tenant.tier)
            self._rules[key] = Rules.of(tier or Tier(tenant.tier), tenant)
        return self._rules[key]

    # --- by hand --------------------------------------------------------------------------------------

    def disable(self, kind: Kind, name: str) -> bool:
        """False where nothing of that name exists. Doing it twice does no harm."""
        if kind == "tenant":
            exists = self.rows is not None or name in self._directory.tenants
        else:
            exists = name in self._directory.clusters
        if exists and name not in self._disabled[kind]:
            self._disabled[kind].add(name)
            self.epoch += 1
        return exists

    def enable(self, kind: Kind, name: str) -> bool:
        """False where it was not disabled."""
        if name not in self._disabled[kind]:
            return False
        self._disabled[kind].remove(name)
        self.epoch += 1
        return True

    def is_disabled(self, kind: Kind, name: str) -> bool:
        return name in self._disabled[kind]
