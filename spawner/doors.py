"""The doors of a node: which ways lead in, as data, computed from its environment and the ports of its run.

One list for everybody who shows doors: pages, API, the toolbars inside a node. A door is a path below the
node's own base (``/user/U/S/`` for node 0, ``/user/U/S/node-i/`` else), so it lies behind the person's
sign-in like everything else there; no door has an address of its own. The first door is the one that a
press on *Open* takes.

Pure: nothing here asks a node whether anything listens. A door whose program is not there (a port on which
nothing runs yet) answers so itself. ``desktop`` is a door when the environment has one *and* whoever asks
does not know it to be missing (CG-5, BX-1, AP-11).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from galilean.errors import mark

#: What an environment may offer by itself, in the order in which doors are shown.
INTERFACES = ("jupyter", "desktop")
#: Ports that a door may lead to.
PORT_FIRST, PORT_LAST = 1024, 65535
#: Ports of the node itself on the container backends: its pages, its ssh.
OWN_PORTS = (8888, 2222)
#: Variables by which a node learns what its environment says.
NODE_INTERFACES = "GALILEAN_INTERFACES"
NODE_PORTS = "GALILEAN_PORTS"
NODE_COMMAND = "GALILEAN_START_COMMAND"
NODE_GEOMETRY = "GALILEAN_DESKTOP_GEOMETRY"
NODE_DPI = "GALILEAN_DESKTOP_DPI"
NODE_APPLICATIONS = "GALILEAN_DESKTOP_APPLICATIONS"
NODE_VNC_PORT = "GALILEAN_VNC_PORT"
NODE_VNC_PASSWORD = "GALILEAN_VNC_PASSWORD"  # noqa: S105 - a name
NODE_VNC_WEB_PATH = "GALILEAN_VNC_WEB_PATH"

#: In ``clusters.state``.
KEPT = "doors"
#: ``node``: as soon as the node answers. ``listens``: when a program of the person's listens there.
When = Literal["node", "listens"]


class DoorsOf(Protocol):
    """What of an environment decides on doors: an entry of the settings, or the choice of a run."""

    @property
    def interfaces(self) -> tuple[str, ...]: ...
    @property
    def ports(self) -> tuple[int, ...]: ...
    @property
    def as_is(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Door:
    """A way into a node.

    Attributes
    ----------
    key
        ``lab``, ``desktop``, ``terminal``, ``app-<name>`` or ``port-<n>``; stable, for programs.
    title
        What the button says: a gettext id over ``{port}``; of an application, what its file says.
    path
        Below the node's base, without a slash in front.
    icon
        Name of a bootstrap icon.
    when
        From when on the door opens.
    port
        Of ``port-<n>``, else 0.
    """

    key: str
    title: str
    path: str
    icon: str
    when: When = "node"
    port: int = 0


LAB = Door(key="lab", title=mark("Lab"), path="lab", icon="box-arrow-up-right")
DESKTOP = Door(key="desktop", title=mark("Desktop"), path="desktop/", icon="display")
TERMINAL = Door(key="terminal", title=mark("Terminal"), path="galilean/terminal", icon="terminal")


@dataclass(frozen=True)
class Kept:
    """What a run's environment said of doors when the run was asked for; it may say something else by now."""

    interfaces: tuple[str, ...]
    ports: tuple[int, ...]
    as_is: bool = False


def to_keep(environment: DoorsOf) -> dict[str, Any]:
    """What a run's row keeps of its environment's doors; nothing when they are as always."""
    if tuple(environment.interfaces) == ("jupyter",) and not environment.ports and not environment.as_is:
        return {}
    said: dict[str, Any] = {"interfaces": list(environment.interfaces), "ports": list(environment.ports)}
    return {KEPT: said | ({"as_is": True} if environment.as_is else {})}


def kept(state: Mapping[str, Any] | None) -> Kept | None:
    """What :func:`to_keep` left in a row."""
    found = (state or {}).get(KEPT)
    if not found:
        return None
    return Kept(tuple(found["interfaces"]), tuple(found["ports"]), bool(found.get("as_is")))


def port_door(port: int) -> Door:
    """The door to a port of the node, by the node's own proxy."""
    return Door(
        key=f"port-{port}",
        title=mark("Port {port}"),
        path=f"proxy/{port}/",
        icon="plug",
        when="listens",
        port=port,
    )


def application_door(name: str, title: str, icon: str) -> Door:
    """The door to an application: its form, then the program."""
    title = (title or name).replace("{", "{{").replace("}", "}}")  # not over anything
    return Door(key=f"app-{name}", title=title, path=f"galilean/apps/{name}", icon=icon)


def doors_of(
    environment: DoorsOf | None,
    *,
    ports: Iterable[int] = (),
    applications: Iterable[Door] = (),
    missing: Collection[str] = (),
) -> tuple[Door, ...]:
    """The doors of each node of a run, in the order in which they are shown.

    Parameters
    ----------
    environment
        What the run was started from; ``None`` = it is in the settings no more, and had JupyterLab.
    ports
        Of the run: declared at its start, or added since.
    applications
        That the nodes of the run said they have.
    missing
        Keys of doors whose programs are known not to be there, such as ``desktop`` where the process
        backend's machine has none.
    """
    if environment is not None and environment.as_is:
        return (LAB,)  # whatever else there is, the node's own part serves it
    interfaces = ("jupyter",) if environment is None else environment.interfaces
    found = [door for name, door in (("jupyter", LAB), ("desktop", DESKTOP)) if name in interfaces]
    found += [TERMINAL, *applications]
    own = () if environment is None else environment.ports
    wanted = sorted({port for port in (*own, *ports) if PORT_FIRST <= port <= PORT_LAST})
    found += [port_door(port) for port in wanted if port not in OWN_PORTS]
    if "jupyter" not in interfaces and "desktop" not in interfaces and own:
        found.sort(key=lambda door: door.port not in own)  # the program is what people came for
    return tuple(door for door in found if door.key not in missing)


def start_variables(
    *,
    interfaces: Iterable[str] = ("jupyter",),
    ports: Iterable[int] = (),
    command: str = "",
    geometry: str = "",
    dpi: int = 0,
    applications: Mapping[str, Mapping[str, str]] | None = None,
    vnc_port: int = 0,
    vnc_password: str = "",
    vnc_web_path: str = "",
) -> Mapping[str, str]:
    """The variables by which a node learns what its environment says; what is as always has none.

    An environment that has neither JupyterLab nor a desktop says ``none``.
    """
    offered = ",".join(interfaces) or "none"
    said = {
        NODE_INTERFACES: "" if offered == "jupyter" else offered,
        NODE_PORTS: ",".join(str(port) for port in ports),
        NODE_COMMAND: command,
        NODE_GEOMETRY: geometry,
        NODE_DPI: str(dpi) if dpi else "",
        NODE_APPLICATIONS: json.dumps(applications) if applications else "",
        NODE_VNC_PORT: str(vnc_port) if vnc_port else "",
        NODE_VNC_PASSWORD: vnc_password,
        NODE_VNC_WEB_PATH: vnc_web_path,
    }
    return {name: value for name, value in said.items() if value}
