"""The entries of ``environments:`` in ``galilean.yaml``: what a node starts from, and what it then offers.

An entry is one text that a person reads, so what contradicts itself in it is told when the file is read
(``galilean config check``), and what only a request can show (no card asked for, too little memory) is
refused with the reason before anything starts. What the chosen backend cannot give is told, never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from galilean.amounts import parse_bytes
from galilean.licences import SERVERS_MOST, Network, never, numeric, read_host, read_port
from galilean.settings_places import Section

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_HOST_NAME = re.compile(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?", re.ASCII)
_NODE = re.compile(r"node-[0-9]+", re.ASCII)
#: What ties a node to the hub and to its cluster is never an environment's to say.
RESERVED = ("GALILEAN_", "JUPYTERHUB_", "JPY_")
#: In a host name: whoever runs it.
PERSON = "{person}"
PORT_FIRST, PORT_LAST, PORTS_MOST = 1024, 65535, 32

_Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str)]


class Display(Section):
    """How a desktop begins; a person may change it while it is open."""

    width: int = Field(default=1600, ge=640, le=7680, description="Pixels.")
    height: int = Field(default=900, ge=480, le=4320, description="Pixels.")
    dpi: int = Field(default=96, ge=48, le=384, description="Dots per inch: the size of letters.")

    @property
    def geometry(self) -> str:
        """``1600x900``."""
        return f"{self.width}x{self.height}"


class Vnc(Section):
    """A VNC or noVNC server that the image brings itself; its start command starts it."""

    port: int = Field(ge=PORT_FIRST, le=PORT_LAST, description="Where it listens in the node.")
    password: str = Field(
        default="",
        max_length=64,
        description="What it asks for; no page and no address carries it. VNC looks at eight characters.",
        repr=False,
    )
    web_path: str = Field(
        default="",
        max_length=200,
        pattern=r"^[A-Za-z0-9._~/-]*$",
        description="noVNC: path of its websocket, `websockify` as a rule; empty = the port speaks VNC itself.",
    )

    @field_validator("password")
    @classmethod
    def _password(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("has signs that nobody can type")
        return value


class DesktopApplication(Section):
    """A program that has a desktop to itself: its window fills the page."""

    title: str = Field(max_length=80)
    command: str = Field(
        min_length=1,
        max_length=4000,
        description="Run by `bash -c` in `~/work`; when it ends, so does its desktop.",
    )


class LicenceServer(Section):
    """A licence server that nodes of the environment get a way to, and nobody else does."""

    host: str = Field(
        max_length=253, description="Its name or numeric address. A name is looked up at each start of a run."
    )
    ports: tuple[int, ...] = Field(
        min_length=1, max_length=PORTS_MOST, description="The ports that are opened there, and no others."
    )
    protocol: Literal["tcp", "udp"] = Field(
        default="tcp", description="A server that needs both is named twice."
    )

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        return read_host(value)

    @field_validator("ports")
    @classmethod
    def _ports(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(read_port(port) for port in value))


class Workbench(Section):
    """Environments that people open on their own, without a project: each with a `work` of its own for every person."""

    offered: bool = Field(default=True, description="Whether there are workbenches.")
    root: bool = Field(
        default=False,
        description="Backends docker and kubernetes: sudo works in workbenches, where the image has it, so that people "
        "install packages of the system and save the image. They are root inside their container with a few "
        "capabilities, never privileged. What they leave in `work` can be root's: mount volumes with `nosuid`, or let "
        "Docker map users.",
    )


class EnvironmentSettings(Section):
    """An environment that projects can choose (CG-8: tag and description are shown in the picker)."""

    title: str
    description: str = ""
    gpu: bool = Field(default=False, description="Made for GPUs: the picker says so.")
    python: str = Field(
        default="", description="Process backend: an interpreter with JupyterLab; empty = our own."
    )
    image: str = Field(default="", description="Container backends: the image.")
    as_is: bool = Field(
        default=False,
        description="Container backends: the image was not made for nodes. Its own `jupyterhub-singleuser` is started, with "
        "what it has: one node, JupyterLab, no ssh, no desktop, no button of the product.",
    )
    variables: dict[str, str] = Field(
        default={},
        description="Variables of every node. Names that begin with GALILEAN_ or JUPYTERHUB_ are ours.",
    )
    interfaces: tuple[Literal["jupyter", "desktop"], ...] = Field(
        default=("jupyter",),
        description="What its nodes offer: `jupyter`, `desktop` or both; none at all only with `command` and "
        "`ports`. A terminal is always there.",
    )
    command: str = Field(
        default="",
        max_length=4000,
        description="Start command: run once on every node by `bash -c` in `~/work`, as the person, when the node "
        "answers. What it prints stands in `~/.galilean-command.log`.",
    )
    ports: tuple[int, ...] = Field(
        default=(),
        max_length=PORTS_MOST,
        description="Ports on which the start command, or whatever people start, answers HTTP: each is a door of "
        "every node, behind the person's sign-in.",
    )
    display: Display = Field(default=Display(), description="Of the desktop.")
    vnc: Vnc | None = Field(
        default=None,
        description="The desktop is the image's own, by its VNC or noVNC server; needs the interface `desktop`.",
    )
    applications: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")], DesktopApplication] = (
        Field(
            default={},
            max_length=50,
            description="Programs that may be opened alone, at `<node>/desktop/?app=<name>`; needs the interface `desktop`.",
        )
    )
    hostname: str = Field(
        default="",
        description="Backend docker: what nodes call themselves, with -0, -1 … behind it; `{person}` in it is the name "
        "of who runs it, so that each person has host names of their own that stay the same, for licences that are "
        "tied to one. They are node-0, node-1 … for one another all the same.",
    )
    licences: tuple[LicenceServer, ...] = Field(
        default=(),
        max_length=SERVERS_MOST,
        description="Licence servers: a run of the environment gets a way to exactly these addresses and ports. Only "
        "administrators name them.",
    )
    needs_gpu: bool = Field(default=False, description="Does not start without a GPU card.")
    least_memory: _Bytes = Field(default=0, ge=0, description="Does not start with less memory per node.")
    sudo: bool = Field(
        default=False,
        description="Backend docker: sudo works in its nodes, where the image has it. Needs allow_sudo.",
    )
    containers: bool = Field(
        default=False,
        description="Containers can be started inside of its nodes by a tool that needs no rights, such as "
        "Charliecloud or Apptainer, where the image has one. Needs allow_containers; not together with sudo.",
    )

    @field_validator("variables")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a variable")
            if name.startswith(RESERVED):
                raise ValueError(f"{name}: names that begin with {', '.join(RESERVED)} are the product's own")
            if "\0" in text:
                raise ValueError(f"{name}: a value cannot contain a NUL character")
        return value

    @field_validator("interfaces")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each interface is named once")
        return value

    @field_validator("ports")
    @classmethod
    def _ports(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for port in value:
            if not PORT_FIRST <= port <= PORT_LAST:
                raise ValueError(f"{port} is no port from {PORT_FIRST} to {PORT_LAST}")
        if len(set(value)) < len(value):
            raise ValueError("each port is named once")
        return value

    @field_validator("command")
    @classmethod
    def _command(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("a command cannot contain a NUL character")
        return value.strip()

    @field_validator("hostname")
    @classmethod
    def _hostname(cls, value: str) -> str:
        plain = value.replace(PERSON, "x", 1)
        if value and (
            not _HOST_NAME.fullmatch(plain)
            or _NODE.fullmatch(plain)
            or plain == "node"
            or value.startswith(PERSON)
        ):
            raise ValueError(
                f"{value!r}: a host name has lower-case letters, digits and hyphens, begins with a letter, and is "
                "not “node”, which is what nodes call one another; {person} may stand in it once, not at its beginning"
            )
        return value

    @model_validator(mode="after")
    def _offers_something(self) -> EnvironmentSettings:
        if not self.interfaces and not (self.command and self.ports):
            raise ValueError(
                "offers nothing: it has neither JupyterLab nor a desktop (interfaces), and no start command with "
                "ports to answer on"
            )
        if self.vnc is not None and "desktop" not in self.interfaces:
            raise ValueError("vnc needs the interface desktop")
        if self.vnc is not None and self.vnc.port in (8888, 2222):
            raise ValueError(f"vnc.port: {self.vnc.port} is the node's own")
        if self.containers and self.sudo:
            raise ValueError(
                "containers and sudo are not given together: root may do with name spaces what nobody else may"
            )
        if self.applications and "desktop" not in self.interfaces:
            raise ValueError("applications need the interface desktop")
        if self.as_is and not self.image:
            raise ValueError("as_is needs an image")
        return self

    def problems(
        self,
        backend: str,
        *,
        allow_sudo: bool,
        allow_containers: bool = False,
        ours: Sequence[Network] = (),
    ) -> Iterator[str]:
        """What the backend, or the centre, does not give to this entry; ``ours`` is the platform's own network."""
        for server in self.licences:
            address = numeric(server.host)
            why = never(address, ours) if address is not None else None
            if why is not None:
                yield f"licences: {server.host} {why}"
        if self.sudo and backend != "docker":
            yield f"sudo: with backend {backend} nobody gets sudo"
        elif self.sudo and not allow_sudo:
            yield "sudo: the centre does not allow it (allow_sudo)"
        if self.containers and backend == "process":
            yield "containers: with backend process nodes may do what the machine lets everybody do"
        elif self.containers and not allow_containers:
            yield "containers: the centre does not allow it (allow_containers)"
        if self.hostname and backend != "docker":
            yield f"hostname: with backend {backend} nodes keep their names"
