"""Which ports the parts use among themselves: chosen once, then kept.

Nodes outlive the hub and know its address, so the hub must come back on the same port. All ports are
taken below the range from which the operating system serves outgoing connections: one that is free when
the product stops must still be free when it starts again.
"""

from __future__ import annotations

import errno
import json
import random
import socket
from collections.abc import Collection
from pathlib import Path

from galilean.errors import UserError, mark
from hub_config.secrets import write_private

INNER = ("hub", "proxy_api", "portal", "metering", "release", "queue", "machines")
_RANGE = range(20000, 30000)


def is_free(host: str, port: int, *, setting: str = "web.host") -> bool:
    """Whether a program may listen there now; ``setting`` is who says the host.

    Raises
    ------
    UserError
        400 when the address is not this machine's, 403 when the port needs an administrator's rights.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            if error.errno == errno.EACCES:
                raise UserError(
                    403,
                    mark("Port {port} needs an administrator's rights. Choose one above 1023: PORT=8000."),
                    port=port,
                ) from error
            raise UserError(
                400,
                mark("{setting} is {host}, at which this machine cannot listen: {why}."),
                setting=setting,
                host=host,
                why=error.strerror or str(error),
            ) from error
    return True


def keep_ports(
    state: Path,
    choose: random.Random | None = None,
    *,
    but: Collection[str] = (),
    more: Collection[str] = (),
) -> dict[str, int]:
    """The inner ports of an installation, chosen at its first start.

    Parameters
    ----------
    state
        State directory; they are kept in ``run/ports.json``.
    choose
        Randomness, for tests.
    but
        Parts that need none, because the settings say where they are.
    more
        Parts besides :data:`INNER`.

    Raises
    ------
    UserError
        503 when the hub's or the registry's port is taken by a program of somebody else.
    """
    path = state / "run" / "ports.json"
    ports = read_ports(state)
    before = dict(ports)
    for name in (*INNER, *more):
        if name in but:
            continue
        port = ports.get(name)
        if isinstance(port, int) and is_free("127.0.0.1", port):
            continue
        if port and name == "hub":
            raise UserError(
                503,
                mark(
                    "Port {port}, at which running nodes know the hub, is taken by another program. Free it, or "
                    "remove {path} when no cluster runs."
                ),
                port=port,
                path=str(path),
            )
        if port and name == "registry":
            raise UserError(
                503,
                mark(
                    "Port {port}, which stands in the names of saved images, is taken by another program. Free it."
                ),
                port=port,
            )
        ports[name] = _free_port(set(ports.values()), choose or random.Random())  # noqa: S311 - not a secret
    if ports != before:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, json.dumps(ports, indent=1) + "\n")
    return ports


def read_ports(state: Path) -> dict[str, int]:
    """The ports of an installation that was started before; empty when it never was."""
    try:
        found: dict[str, int] = json.loads((state / "run" / "ports.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {name.replace("-", "_"): port for name, port in found.items()}


def _free_port(taken: set[int], choose: random.Random) -> int:
    for _ in range(200):
        port = choose.choice(_RANGE)
        if port not in taken and is_free("127.0.0.1", port):
            return port
    raise UserError(503, mark("No free port was found between 20000 and 29999 on 127.0.0.1."))
