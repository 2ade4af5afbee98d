"""Ways to licence servers in the firewall of this machine: opened for one cluster, and gone with it (CG-45).

The table of :mod:`spawner.docker.firewall` is the same for all clusters; what one of them may reach besides stands in a
set of that table, keyed by the interface of its network, which a container cannot choose. Whoever opens first takes away
what is left under that interface's name: it is computed from person and server, and the cluster before it may have been
of another environment and been cut off with its hub.

Only root changes a firewall. Where the hub is not root, a way is there if the table's standing rules
(``docker.outside``, ``docker.reaches``) let everybody through, and else a start is refused in words.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from galilean.errors import UserError, mark
from spawner.docker import firewall
from spawner.docker.firewall import LICENCES, TABLE
from spawner.docker.keeper import TableKeeper
from spawner.licences import Way

_NOT_ROOT = mark(
    "This environment has a licence server at {address}, to which the firewall of this machine lets nobody through, and "
    "Galilean does not run as root here, so it cannot open a way for one cluster. An administrator can open it for "
    "all (docker.reaches)."
)
_NOT_KEPT = mark(
    "The firewall rules that keep nodes off this machine's own services are gone, and cannot be put in again: {why} "
    "Tell your administrator; nothing is started without them."
)
_NOT_OPENED = mark("The way to the licence servers of this environment cannot be opened: {why}")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Opens and closes ways; blocks.

    Attributes
    ----------
    outside, not_outside, reaches
        What the table lets everybody through to, as in :class:`spawner.docker.firewall.Reach`.
    may_apply
        Whether this process can put rules into the kernel.
    keeper
        Has the table in the kernel before anything is started; ``None`` = somebody else answers for it.
    nft
        Runs nft with these words and this input; what it says.
    """

    outside: bool = True
    not_outside: Sequence[str] = ()
    reaches: Sequence[str] = ()
    may_apply: Callable[[], bool] = firewall.may_apply
    keeper: TableKeeper | None = None
    nft: Callable[[Sequence[str], str], str] = lambda words, text: run_nft(words, text)

    def open(self, bridge: str, ways: Iterable[Way]) -> None:
        """Let what comes from an interface through to exactly these, besides what everybody reaches.

        Looks first whether the table is there at all, and puts it in again when somebody took it out.

        Raises
        ------
        UserError
            503 when it cannot be.
        """
        wanted = sorted(ways)
        if not self.may_apply():
            shut = next((way for way in wanted if not self.stands_open(way)), None)
            if shut is not None:
                raise UserError(503, _NOT_ROOT, reason="licence-firewall", address=shut.address)
            return
        with self.keeper.turn if self.keeper is not None else contextlib.nullcontext():
            self.keep()
            self._let(bridge, wanted)

    def keep(self) -> None:
        """Have the table in the kernel, where that is ours to do.

        Raises
        ------
        UserError
            503 when it is gone and cannot be put in again.
        """
        if self.keeper is None or not self.may_apply():
            return
        try:
            self.keeper.keep()
        except OSError as error:
            raise UserError(503, _NOT_KEPT, reason="firewall", why=str(error)[:300]) from error

    def _let(self, bridge: str, wanted: Sequence[Way]) -> None:
        try:
            text = change(bridge, self._there(bridge), wanted)
            if text:
                self.nft(["-f", "-"], text)
            if text and self.keeper is not None:
                self.keeper.note()
        except OSError as error:
            raise UserError(503, _NOT_OPENED, reason="licence-firewall", why=str(error)[:300]) from error

    def close(self, bridge: str) -> None:
        """Take away what is open for an interface. What stays all the same leads nowhere without the interface, and
        whoever opens next for it takes it away first, or is refused.
        """
        with contextlib.suppress(UserError):
            self.open(bridge, ())

    def stands_open(self, way: Way) -> bool:
        """Whether everybody gets there anyhow."""
        address = ip_address(way.address)

        def among(networks: Iterable[str]) -> bool:
            return any(address in ip_network(text, strict=False) for text in networks)

        return among(self.reaches) or (self.outside and not among(self.not_outside))

    def _there(self, bridge: str) -> list[list[Any]]:
        """What the set has for an interface; nothing where there is no table."""
        try:
            said = json.loads(self.nft(["--json", "list", "set", "inet", TABLE, LICENCES], ""))
        except OSError as error:
            if "No such file" in str(error):
                return []
            raise
        return elements(said, bridge)


def change(bridge: str, there: Iterable[Sequence[Any]], wanted: Iterable[Way]) -> str:
    """What makes the set say so for an interface, all at once; empty = it does."""
    old = {(str(address), str(protocol), int(port)) for _, address, protocol, port in there}
    new = {(way.address, way.protocol, way.port) for way in wanted}
    lines = [
        f'{verb} element inet {TABLE} {LICENCES} {{ "{bridge}" . {address} . {protocol} . {port} }}'
        for verb, those in (("delete", old - new), ("add", new - old))
        for address, protocol, port in sorted(those)
    ]
    return "\n".join([*lines, ""]) if lines else ""


def elements(said: Any, bridge: str) -> list[list[Any]]:
    """Of what ``nft --json list set`` says, the elements of an interface."""
    found: list[list[Any]] = []
    for item in said.get("nftables", ()):
        for element in item.get("set", {}).get("elem", ()):
            parts = element.get("concat", ()) if isinstance(element, dict) else ()
            if len(parts) == 4 and parts[0] == bridge:
                found.append(list(parts))
    return found


def run_nft(words: Sequence[str], text: str) -> str:
    """What nft says.

    Raises
    ------
    OSError
        With what it said when it failed.
    """
    command = ["nft", *words]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=30)
    except subprocess.TimeoutExpired as error:
        raise OSError("nft does not come to an end") from error
    if done.returncode:
        raise OSError(done.stderr.strip() or f"nft ended with {done.returncode}")
    return done.stdout
