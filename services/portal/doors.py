"""The doors of a running cluster as pages and API show them: addresses and words for :mod:`spawner.doors`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from jupyterhub.utils import subdomain_hook_idna

from extensions.desktop import available
from galilean.application_rules import said
from galilean.errors import UserError, mark
from galilean.web import language
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from spawner import doors as rules
from spawner import ports
from spawner.doors import Door
from spawner.records import Run

_AS_IS = mark(
    "This image runs as it is, by its own server, which opens no ports. Adapt it, and the next run has what it lacks."
)


@dataclass(frozen=True, kw_only=True)
class Way:
    """A door of one node, with the address at which a browser finds it."""

    door: Door
    url: str

    @property
    def key(self) -> str:
        return self.door.key

    @property
    def name(self) -> str:
        """The key, as the API calls it."""
        return self.door.key


def node_url(portal: Portal, user: str, server: str, rank: int = 0, path: str = "lab") -> str:
    """Address of a page on a node as a browser reaches it, on the person's own host where there is one."""
    base = f"{portal.settings.web.base_url}user/{quote(user, safe='@~')}/{quote(server, safe='')}/"
    if rank:
        base += f"node-{rank}/"
    host = ""
    if portal.settings.web.subdomain_host:
        parts = urlsplit(portal.settings.web.subdomain_host)
        host = f"{parts.scheme}://{subdomain_hook_idna(user, parts.netloc, 'user')}"
    return host + base + path


def _entry(portal: Portal, run: Run) -> rules.DoorsOf | None:
    """The file says what its entries are; of others only the row knows what they were when it was asked for."""
    return portal.settings.environments.get(run.environment) or rules.kept(run.state)


def is_as_is(portal: Portal, run: Run) -> bool:
    """Whether a run's image has its own server alone: no ssh, no ports, no terminal and no desktop of ours."""
    entry = _entry(portal, run)
    return entry is not None and entry.as_is


def doors_of_run(portal: Portal, run: Run) -> tuple[Door, ...]:
    """What each node of a run offers."""
    entry = _entry(portal, run)
    missing: set[str] = set()
    # The process backend's nodes are processes of this machine; an image says by itself what it has.
    on_this_machine = portal.settings.backend == "process" and getattr(entry, "vnc", None) is None
    if entry is not None and "desktop" in entry.interfaces and on_this_machine and available.missing():
        missing.add(rules.DESKTOP.key)
    known = portal.settings.applications
    applications = [
        rules.application_door(name, said(known[name].title, language.current.get()), known[name].icon)
        for name in ports.applications_of(run)
        if name in known and known[name].enabled
    ]
    return rules.doors_of(entry, ports=ports.ports_of(run), applications=applications, missing=missing)


def ways(portal: Portal, run: Run, rank: int) -> list[Way]:
    """The ways into a node, the first being what *Open* opens (CG-5, BX-1)."""
    return [
        Way(door=door, url=node_url(portal, run.user, run.server, rank, door.path))
        for door in doors_of_run(portal, run)
    ]


async def change_port(
    portal: Portal, person: Visitor, run: Run, *, add: int | None = None, drop: int | None = None
) -> None:
    """Show a port of one's own running cluster as a door, or show it no more (AP-11).

    Raises
    ------
    UserError
        400 for what is no port, 403 for somebody else's cluster, 409 when it does not run or has too many.
    """
    if run.user != person.name:
        raise UserError(403, mark("Only its owner opens ports of a cluster."))
    if add is not None:
        if is_as_is(portal, run):
            raise UserError(409, _AS_IS, reason="as-is")
        ports.check_port(add)
    if run.word != "running" or not await portal.db.run(ports.change_ports, run.id, add=add, drop=drop):
        raise UserError(409, mark("The cluster does not run."))
