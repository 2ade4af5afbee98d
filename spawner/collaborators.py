"""What the spawner is handed at the top floor: who resolves a request, and who admits a plan.

Both run inside the hub process, before anything is started, and may take a hop to the database's thread
but never block the loop. Both refuse with :class:`galilean.errors.UserError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from galilean.clock import Clock, utcnow
from galilean.db import Database
from spawner.plan import ClusterPlan
from spawner.records import Run
from spawner.request import ClusterRequest


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who a cluster is for and who asked for it, as the hub knows them at this moment.

    Attributes
    ----------
    name
        The owner of the server.
    groups
        The hub groups of the owner, ``galilean:<role>`` among them.
    asked_by
        Who sent the request: the owner, an admin on behalf, or a service (``service:queue``).
    """

    name: str
    groups: Sequence[str] = ()
    asked_by: str = ""

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the person, in the order of the groups."""
        prefix = "galilean:"
        return tuple(group.removeprefix(prefix) for group in self.groups if group.startswith(prefix))


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """The run that admission let in (or took up, when it was waiting).

    Attributes
    ----------
    run
        Its row, with the start begun: ``None`` when somebody wanted it released in the same moment.
    """

    run_id: str
    run: Run | None


class Resolver(Protocol):
    async def resolve(self, person: Person, server: str, request: ClusterRequest) -> ClusterPlan:
        """Fill a request from the project and the environment, checking that the person may.

        Raises
        ------
        UserError
            400 for values that cannot be, 403 for not allowed, 404 for no such project.
        """
        ...


@dataclass(frozen=True)
class PullLogin:
    """The name and password with which a registry gives an image away; it has no readable form."""

    registry: str
    username: str = field(repr=False)
    password: str = field(repr=False)


class Logins(Protocol):
    async def __call__(self, key: str) -> PullLogin:
        """What is kept under the key of a plan's environment.

        Raises
        ------
        UserError
            404 when it is there no more, 409 when it cannot be read.
        """
        ...


class Admission(Protocol):
    async def admit(
        self, person: Person, plan: ClusterPlan, request: ClusterRequest, names: Sequence[str]
    ) -> Admitted:
        """Reserve a row for the plan in one serialised transaction, or take up the waiting one.

        The start is begun (:func:`spawner.steps.begin_start`) in the same transaction, with these names of
        nodes: a second one would cost the hub more than all that it writes.

        Raises
        ------
        UserError
            429 with reason ``quota``; 409 when a run of this (user, server) is open already; 503 with
            reason ``queued`` when there is no room now and the row waits in line.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Collaborators:
    """All that a :class:`spawner.cluster.VirtualCluster` works with (``c.VirtualCluster.collaborators``).

    Attributes
    ----------
    database
        Ours; in the hub with one thread, so that transactions keep the order in which they were asked for.
    resolver, admission
        Who fills a request, and who admits the plan.
    clock
        The time, aware and UTC.
    language
        The site's, for people whose browser asks for neither English nor Chinese.
    sleep
        How to pause between two attempts to remove nodes.
    logins
        Who knows the names and passwords that images are fetched with; ``None`` = nobody.
    """

    database: Database
    resolver: Resolver
    admission: Admission
    clock: Clock = utcnow
    language: str = "en"
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    logins: Logins | None = None

    def __deepcopy__(self, memo: Any) -> Collaborators:
        return self  # traitlets copies what is configured; a database must not be
