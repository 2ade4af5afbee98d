"""The hub's live objects, and how they reach it.

``configure(c)`` runs inside the hub process: settings → traits (:mod:`hub_config.build`), the
collaborators that the spawner is handed (database, resolver, admission), and the chores that run beside
the hub. What the ``jupyterhub:`` section of the settings says is laid over that, and the files of
``jupyterhub_config.d`` beside ``galilean.yaml`` come last, in the order of their names; in them ``c`` is
the hub's configuration, as everywhere in JupyterHub.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galilean import rights
from galilean.centre import version
from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.mail import send_soon
from galilean.rights import Rights
from galilean.settings import Settings, load_settings
from hub_config import disk_claims, port_shares, role_sync
from hub_config.addresses import Addresses
from hub_config.build import browser_url, hub_traits
from hub_config.ports import read_ports
from hub_config.role_sync import Following
from hub_config.secrets import given_directory, load_secrets, needed_by, waiting_accounts
from hub_config.seeding import seed
from hub_config.sign_out import signed_in
from services.people import store
from spawner.backends import inventory_of

if TYPE_CHECKING:
    from spawner.inventory import Inventory


log = logging.getLogger("galilean.hub")

MACHINES_SECONDS = 15
#: How soon the hub sees that somebody asked for a node to be made anew; one question of an index that is empty.
RENEWAL_SECONDS = 1.0


class Chore:
    """Something done again and again beside the hub; what it raises is logged and it goes on.

    Parameters
    ----------
    name
        For the log.
    every_seconds
        Pause between two turns.
    function
        One turn.
    """

    def __init__(self, name: str, every_seconds: float, function: Callable[[], Awaitable[Any]]) -> None:
        self.name, self.every_seconds, self.function = name, every_seconds, function

    async def run(self, log: Any) -> None:
        """Turn after turn until cancelled."""
        failures = 0
        while True:
            try:
                await self.function()
                failures = 0
            except Exception:
                failures += 1
                # The stack once per trouble, then a line.
                log.error("%s failed (%d in a row)", self.name, failures, exc_info=failures == 1)
            await asyncio.sleep(self.every_seconds)


@dataclass(kw_only=True)
class Wiring:
    """What the hub process holds besides JupyterHub's own objects."""

    settings: Settings
    database: Database
    inventory: Inventory
    following: Following = field(default_factory=lambda: Following(Rights(), 0))
    room: Any = None
    clock: Clock = utcnow
    portal_key: str = ""
    #: Names of those who are being deleted just now.
    going: set[str] = field(default_factory=set)
    #: Lines of the audit log that are on their way.
    told: set[Any] = field(default_factory=set)

    def __deepcopy__(self, memo: Any) -> Wiring:
        return self  # traitlets copies what is configured; a database must not be

    def chores(self, hub: Any) -> list[Chore]:
        """What runs beside the hub, at its start and again and again.

        One sweeper for all its turns: it closes a ghost only when it finds it twice. Leftovers have a turn of
        their own: finishing one off waits for the backend, and the sweeper need not.
        """
        from spawner.leftovers import finish_leftovers
        from spawner.renewing import attend_all
        from spawner.sweeper import Sweeper

        sweeper = Sweeper(self.database, self.inventory, self.clock)

        async def finish() -> None:
            for run in await finish_leftovers(hub, self.database):
                hub.log.warning("Run %s was open and the hub had nothing of it: released", run)

        async def sweep() -> None:
            report = await sweeper.sweep(remove=True)
            if not report.clean:
                hub.log.warning("The sweeper found something: %s", report.as_dict())

        every = self.settings.sweep_seconds
        found = [
            Chore("Finishing leftovers", every, finish),
            Chore("The sweeper", every, sweep),
            Chore("Making nodes anew", RENEWAL_SECONDS, lambda: attend_all(hub, self.database)),
            Chore(
                "Following shared ports",
                port_shares.SECONDS,
                lambda: port_shares.follow(hub.db, self.database, self.settings),
            ),
            Chore("Following roles", role_sync.SECONDS, lambda: self.following.look(hub.db, self.database)),
        ]
        if self.settings.backend == "kubernetes":
            found.append(
                Chore(
                    "Deleting claims of disks",
                    disk_claims.SECONDS,
                    lambda: disk_claims.purge(self.database, self.settings.kubernetes.namespace, self.clock),
                )
            )
        if hasattr(self.room, "learn"):
            found.append(
                Chore("Learning of machines", MACHINES_SECONDS, lambda: self.room.learn(self.database))
            )
        return found


def configure(c: Any, environ: dict[str, str] | None = None) -> Wiring:
    """Fill the hub's configuration; called by ``jupyterhub_config.py``.

    Raises
    ------
    UserError
        503 when the product was never started on this state directory, so that no ports are known.
    """
    env = dict(os.environ) if environ is None else environ
    settings = load_settings(environ=env)
    addresses = Addresses(settings, read_ports(settings.state))
    if "hub" not in addresses:
        raise UserError(
            503,
            mark("The hub is started by `galilean up`; nothing is known of {state} yet."),
            state=str(settings.state),
        )
    secrets = load_secrets(settings.state, given_directory(env), names=needed_by("hub"))
    database = Database(settings.database_url, threads=1)
    following = rights_at_start(database, settings)
    waiting = [
        account for _, account in waiting_accounts(settings.state) if account.role in following.rights.roles
    ]
    lay(
        c,
        hub_traits(
            settings,
            secrets,
            addresses,
            waiting=waiting,
            rights=following.rights,
            rights_now=lambda: following.rights,
        ),
    )
    wiring = Wiring(
        settings=settings,
        database=database,
        following=following,
        portal_key=secrets.tokens["portal"],
        inventory=inventory_of(settings),
        room=room_of(settings),
    )
    c.GalileanHub.wiring = wiring
    c.VirtualCluster.collaborators = c.ClusterProxy.collaborators = collaborators(wiring)
    if settings.backend == "kubernetes":
        from spawner.kubernetes.cluster import pod_nodes

        c.KubeCluster.pods = pod_nodes(settings.kubernetes.namespace)
    if settings.backend == "docker":
        from hub_config.docker import gate_of
        from spawner.docker.cluster import container_nodes

        c.DockerCluster.containers = container_nodes(
            url=settings.docker.url,
            instance=settings.docker.instance,
            state=settings.state,
            pool=settings.docker.network_pool,
            gpus=settings.docker.gpus,
            gate=gate_of(settings, addresses),
        )
    c.Authenticator.post_auth_hook = signed_in(wiring)
    c.GalileanAuthenticator.signed_up = after_sign_up(wiring)
    lay(c, settings.jupyterhub)
    for path in config_files(env):
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"c": c, "get_config": lambda: c})  # noqa: S102
    return wiring


def rights_at_start(database: Database, settings: Settings) -> Following:
    """Roles and groups as decided; where nothing ever was, the settings begin it."""
    with database.serialised("seed") as conn:
        seed(conn, settings, utcnow())
        return Following(rights.read(conn), version(conn))


def lay(c: Any, traits: dict[str, dict[str, Any]]) -> None:
    """Set ``{class: {trait: value}}`` on a traitlets configuration."""
    for name, values in traits.items():
        for trait, value in values.items():
            c[name][trait] = value


def config_files(env: dict[str, str]) -> list[Path]:
    """``jupyterhub_config.d/*.py`` beside ``galilean.yaml``."""
    beside = Path(env["GALILEAN_CONFIG"]).parent if env.get("GALILEAN_CONFIG") else Path()
    return sorted((beside / "jupyterhub_config.d").glob("*.py"))


def collaborators(wiring: Wiring) -> Any:
    """What every cluster is handed."""
    from hub_config import decisions

    return decisions.collaborators(
        wiring.database, wiring.settings, wiring.room, wiring.clock, secret=wiring.portal_key
    )


def room_of(settings: Settings) -> Any:
    """Who knows whether there is room: this machine for its processes and containers; for pods the scheduler, later.

    What no machine could ever hold is refused for pods, too.
    """
    if settings.backend == "process":
        from extensions.quota.room import HostRoom

        return HostRoom.of_this_machine(settings.process)
    if settings.backend == "docker":
        from extensions.quota.room import HostRoom
        from spawner.docker.subnets import most_clusters

        return HostRoom.of_containers(settings.docker, clusters=most_clusters(settings.docker.network_pool))
    from services.machines.room import MachineRoom

    return MachineRoom(settings)


def after_sign_up(wiring: Wiring) -> Any:
    """What happens after somebody has signed up: the mail address stands where pages show and change it, and
    the administrators are told.
    """
    tell, tasks = tell_admins(wiring.settings), set[asyncio.Task[None]]()

    async def keep(name: str, email: str) -> None:
        try:
            await wiring.database.run(store.keep, name, now=wiring.clock(), by=name, mail=email)
        except UserError as error:  # letters go to the address of the sign-up all the same
            log.warning("The mail address of %s is not shown: %s", name, error)

    def signed_up(name: str, email: str) -> None:
        tell(name)
        if email:
            task = asyncio.create_task(keep(name, email))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    return signed_up


def tell_admins(settings: Settings) -> Any:
    """Write to the administrators, when there is a server for it, that somebody waits."""
    tasks: set[asyncio.Task[bool]] = set()

    def signed_up(name: str) -> None:
        if not settings.mail.host or not settings.mail.admins:
            return
        task = asyncio.create_task(
            send_soon(
                settings.mail,
                to=settings.mail.admins,
                subject=f"{settings.site.name}: {name} waits for a role",
                text=(
                    f"{name} has made an account and waits for a role.\n"
                    f"Give one here: {browser_url(settings)}services/portal/admin/people\n"
                ),
            )
        )
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return signed_up
