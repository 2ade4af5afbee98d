"""What a person may ask for: the keys of ``user_options``, checked before anything else happens.

``user_options`` reach the hub from pages, scripts and strangers. Only the keys of the contract (design
§10) are taken; image, mounts, variables and everything else that a *plan* resolves are refused when
somebody smuggles them in. A request is complete by itself: what it leaves out is ``None`` and is filled
from the project's defaults by the resolver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from galilean.amounts import parse_bytes, parse_millicores
from galilean.errors import UserError, mark

NODES_MOST = 1024
NODE_LOSS = ("release", "keep")
GPU_MOST = 1024
PORTS_MOST = 32
DISKS_MOST = 16
DISK_MODES = ("read", "write")
PORT_FIRST, PORT_LAST = 1024, 65535


@dataclass(frozen=True, kw_only=True)
class ClusterRequest:
    """A request for a virtual cluster; all amounts are per node, ``None`` means "as the project says".

    Attributes
    ----------
    project
        ``slug`` of one's own project or ``owner/slug``; ``None`` = the one whose alias the server is.
    nodes
        Number of nodes, at least 1.
    cpu_millicores, memory_bytes, gpu, storage_bytes
        Amounts per node.
    environment, pool, gpu_model
        Names of the catalogue's entries.
    ports
        Ports to expose on each node.
    release
        Name of the release policy.
    on_node_loss
        ``release`` the whole or ``keep`` the rest (BX-20).
    disks
        Names of the person's own disks with ``read`` or ``write``, by name.
    """

    project: str | None = None
    nodes: int | None = None
    cpu_millicores: int | None = None
    memory_bytes: int | None = None
    gpu: int | None = None
    gpu_model: str | None = None
    storage_bytes: int | None = None
    environment: str | None = None
    pool: str | None = None
    ports: tuple[int, ...] = ()
    release: str | None = None
    on_node_loss: str | None = None
    disks: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, user_options: object) -> ClusterRequest:
        """A request from ``user_options`` as the hub hands them over.

        Raises
        ------
        UserError
            400, in words, naming the key and what it takes.
        """
        if user_options is None:
            return cls()
        if not isinstance(user_options, Mapping):
            raise UserError(400, mark("A request is a set of named values, such as nodes, cpu and memory."))
        options = cast(Mapping[Any, object], user_options)
        values: dict[str, Any] = {}
        for key, value in options.items():
            if key == "profile":  # a label for the hub's admin panel, of no consequence
                continue
            if not isinstance(key, str) or key not in _KEYS:
                raise UserError(
                    400,
                    mark("“{key}” is not something a request can say. It takes: {known}."),
                    key=str(key)[:60],
                    known=", ".join(_KEYS),
                )
            if value is None:
                continue
            field, reader = _KEYS[key]
            values[field] = reader(key, value)
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """The request as plain JSON values without what was left out, for the row of the run."""
        values: dict[str, Any] = {key: value for key, value in asdict(self).items() if value is not None}
        values["ports"] = list(self.ports)
        if not self.ports:
            del values["ports"]
        values["disks"] = dict(self.disks)
        if not self.disks:
            del values["disks"]
        return values

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ClusterRequest:
        """The request that :meth:`as_dict` stored with a run."""
        values: dict[str, Any] = {**stored, "ports": tuple(stored.get("ports", ()))}
        values["disks"] = tuple(sorted(stored.get("disks", {}).items()))
        return cls(**values)


def _count(least: int, most: int) -> Callable[[str, object], int]:
    def read(key: str, value: object) -> int:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not least <= value <= most  # NaN neither; a number of a thousand digits is no float
            or value != int(value)
        ):
            message = mark("“{key}” takes a whole number from {least} to {most}.")
            raise UserError(400, message, key=key, least=least, most=most)
        return int(value)

    return read


def _cpu(key: str, value: object) -> int:
    try:
        millicores = parse_millicores(value)
    except ValueError:
        millicores = 0
    if not 0 < millicores <= 10**7:
        raise UserError(400, mark("“{key}” takes a number of CPUs, more than 0."), key=key)
    return millicores


def _bytes(least: int) -> Callable[[str, object], int]:
    def read(key: str, value: object) -> int:
        try:
            amount = parse_bytes(value)
        except ValueError:
            amount = -1
        if not least <= amount <= 2**55:
            message = mark("“{key}” takes an amount such as “8G”, or a number of bytes.")
            raise UserError(400, message, key=key)
        return amount

    return read


def _word(key: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not value.isprintable():
        raise UserError(400, mark("“{key}” takes a name."), key=key)
    return value


def _one_of(*choices: str) -> Callable[[str, object], str]:
    def read(key: str, value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            message = mark("“{key}” takes one of: {choices}.")
            raise UserError(400, message, key=key, choices=", ".join(choices))
        return value

    return read


def _ports(key: str, value: object) -> tuple[int, ...]:
    refusal = UserError(
        400,
        mark("“{key}” takes a list of at most {most} port numbers from {first} to {last}."),
        key=key,
        most=PORTS_MOST,
        first=PORT_FIRST,
        last=PORT_LAST,
    )
    if not isinstance(value, list | tuple):
        raise refusal
    items = cast(list[object], list(cast(Any, value)))
    if len(items) > PORTS_MOST:
        raise refusal
    read = _count(PORT_FIRST, PORT_LAST)
    try:
        return tuple(dict.fromkeys(read(key, item) for item in items))
    except UserError:
        raise refusal from None


def _disks(key: str, value: object) -> tuple[tuple[str, str], ...]:
    refusal = UserError(
        400,
        mark("“{key}” takes at most {most} names of disks, each with one of: {choices}."),
        key=key,
        most=DISKS_MOST,
        choices=", ".join(DISK_MODES),
    )
    if not isinstance(value, Mapping):
        raise refusal
    named = cast(Mapping[object, object], value)
    if len(named) > DISKS_MOST:
        raise refusal
    found: list[tuple[str, str]] = []
    for name, mode in named.items():
        if not isinstance(name, str) or not 0 < len(name) <= 64 or mode not in DISK_MODES:
            raise refusal
        found.append((name, str(mode)))
    return tuple(sorted(found))


_KEYS: dict[str, tuple[str, Callable[[str, object], object]]] = {
    "project": ("project", _word),
    "nodes": ("nodes", _count(1, NODES_MOST)),
    "cpu": ("cpu_millicores", _cpu),
    "memory": ("memory_bytes", _bytes(1)),
    "gpu": ("gpu", _count(0, GPU_MOST)),
    "gpu_model": ("gpu_model", _word),
    "storage": ("storage_bytes", _bytes(0)),
    "environment": ("environment", _word),
    "pool": ("pool", _word),
    "ports": ("ports", _ports),
    "release": ("release", _word),
    "on_node_loss": ("on_node_loss", _one_of(*NODE_LOSS)),
    "disks": ("disks", _disks),
}
