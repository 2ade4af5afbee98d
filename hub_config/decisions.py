"""What administrators decided, as every start meets it: limits, offered release policies, terms.

The rooms of limits, of release and of machine time do not know one another. Here each is handed what it needs
of the others: admission asks for the terms that it freezes into a run, the catalogue for the policies that
somebody may choose, budgets for what was used. All of them go by the version of the decisions, so that a
start reads again only what was changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from extensions.imagebuilder import keys, locks
from extensions.imagebuilder import store as environments
from extensions.imagebuilder.entries import Viewer, may_see
from extensions.imagebuilder.keys import Seal
from extensions.imagebuilder.names import is_python
from extensions.quota.admission import QuotaAdmission
from extensions.quota.policy import Policy
from extensions.quota.room import RoomCheck
from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.rights import slugs_of
from galilean.settings import Settings
from services.catalog.disk_store import Leases
from services.catalog.environments import Kept
from services.catalog.resolver import CatalogResolver, Offered
from services.portal.budgets import UsedByDays
from services.release import rules as release
from spawner.collaborators import Collaborators, Person, PullLogin
from spawner.process.lock import Lock


class Decisions:
    """One for each process that admits."""

    def __init__(self) -> None:
        self.policy = Policy()
        self._release = release.kept()

    def offers(self, conn: Connection, person: Person, now: datetime) -> Offered:
        """See :class:`services.catalog.resolver.Offers`."""
        limits, snapshot = self.policy.glance(conn, person.name, person.roles, now)
        rules = self._release.get(conn, snapshot.version)
        manual = limits is not None and limits.manual_release
        return Offered(
            policies=release.offered_to(rules, person.roles, manual),
            default=release.default_for(rules, person.roles, manual),
            everybody=release.offered_to(rules, rules.roles or (), True) + tuple(rules.site.offered),
        )

    def terms_of(
        self,
        conn: Connection,
        *,
        user: str,
        roles: tuple[str, ...],
        policy: str,
        manual: bool,
        version: int,
        now: datetime,
    ) -> Mapping[str, Any]:
        """See :class:`extensions.quota.admission.TermsOf`."""
        rules = self._release.get(conn, version)
        return release.terms_for(rules, roles, policy, manual).to_json()


def kept_environment(conn: Connection, person: Person, name: str, *, python: bool = False) -> Kept | None:
    """See :class:`services.catalog.environments.Shelf`; ``python`` where nodes are processes, which have no images."""
    found = environments.by_name(conn, name)
    if found is None or is_python(found.version.image) != python:
        return None
    viewer = Viewer(
        name=person.name, groups=frozenset(slugs_of(person.groups)), manages="admin" in person.roles
    )
    if not may_see(viewer, found, environments.grantees(conn, found.id)):
        return None
    if found.retired_at is not None:
        raise UserError(
            409,
            mark("“{environment}” is retired: it takes no new runs. Choose another environment."),
            environment=found.title,
            reason="retired",
        )
    lock = locks.text_of(conn, found.version.digest) or "" if python else ""
    return Kept(
        name=found.name,
        settings=found.settings,
        digest=found.version.digest,
        key=found.version.key_id,
        lock=lock,
        base=Lock.parse(lock).environment if python else "",
    )


class KeptLogins:
    """See :class:`spawner.collaborators.Logins`."""

    def __init__(self, database: Database, seal: Seal) -> None:
        self._database, self._seal = database, seal

    async def __call__(self, key: str) -> PullLogin:
        """What is kept under a key."""

        def read(conn: Connection) -> PullLogin:
            found = keys.opened(conn, self._seal, key)
            return PullLogin(keys.registry_of(conn, key), found.username, found.password)

        return await self._database.run_read(read)


def collaborators(
    database: Database,
    settings: Settings,
    room: RoomCheck | None = None,
    clock: Clock = utcnow,
    *,
    backend: str = "",
    secret: str = "",
) -> Collaborators:
    """What every cluster is handed.

    ``room`` is ``None`` where a scheduler has the word; ``secret`` is what portal and hub share, by which names and
    passwords of registries are kept.
    """
    decisions = Decisions()
    shelf = partial(kept_environment, python=settings.backend == "process")
    return Collaborators(
        database=database,
        resolver=CatalogResolver(database, settings, clock, offers=decisions.offers, shelf=shelf),
        admission=QuotaAdmission(
            database,
            decisions.policy,
            room,
            clock,
            backend=backend or settings.backend,
            terms_of=decisions.terms_of,
            usage_of=UsedByDays(settings.site.zone),
            zone=settings.site.zone,
            leases=Leases(),
        ),
        clock=clock,
        language=settings.site.language,
        logins=KeptLogins(database, Seal(secret)) if secret else None,
    )
