"""The table of :mod:`spawner.docker.firewall` stays in the kernel while clusters run, whoever empties it.

A restart of nftables, a firewall program of the machine or a hand take all tables out without asking, and every node would
reach the services of the machine from then on. So the hub looks before each start and now and again, puts the table
in again with the ways that were open, and says so in its log. What is compared is what nft itself made of the
rules. Only root can look and put in; where the hub is not root, the start of the product proves the rules, and nobody after it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spawner.docker.firewall import LICENCES, TABLE

#: Between two looks; each runs nft twice, some 20 ms.
KEEP_SECONDS = 15.0

Element = tuple[str, str, str, int]


@dataclass(frozen=True)
class Seen:
    """What the kernel has: the table as nft lists it, without counts, and who reaches which licence server."""

    table: str
    ways: frozenset[Element]


class TableKeeper:
    """Keeps the table; blocks.

    Parameters
    ----------
    rules
        The table as ``nft -f`` takes it.
    nft
        Runs nft with these words and this input; what it says.
    """

    def __init__(
        self, rules: Callable[[], str], nft: Callable[[Sequence[str], str], str], *, log: Any = None
    ) -> None:
        self._rules, self._nft = rules, nft
        self._log = log or logging.getLogger(__name__)
        self._known: Seen | None = None
        #: Held by whoever opens a way, too, from the look to the note.
        self.turn = threading.RLock()

    def keep(self) -> bool:
        """Have the table in the kernel as it should be; whether it was.

        Raises
        ------
        OSError
            When it is not there and cannot be put in.
        """
        with self.turn:
            seen, known = self._look(), self._known
            if seen is not None and seen == known:
                return True
            # The first look of a hub: its clusters may be older than it is, and so their ways.
            ways = known.ways if known is not None else seen.ways if seen is not None else frozenset()
            self._nft(["-f", "-"], self._rules() + _ways(ways))
            self.note()
            if known is None and seen is not None:
                return True
            self._log.error(
                "The firewall rules that keep nodes off this machine (table inet %s) were %s by somebody; "
                "they are in place again. Until then nodes could reach this machine's services.",
                TABLE, "removed" if seen is None else "changed",
            )  # fmt: skip
            return False

    def note(self) -> None:
        """Take what is there now as what should be."""
        with self.turn:
            self._known = self._look()
            if self._known is None:
                raise OSError("nft took the rules, and has none")

    def _look(self) -> Seen | None:
        try:
            table = self._nft(["--stateless", "--terse", "list", "table", "inet", TABLE], "")
            said = json.loads(self._nft(["--json", "list", "set", "inet", TABLE, LICENCES], ""))
        except OSError as error:
            if "No such file" in str(error):
                return None
            raise
        return Seen(table, frozenset(_elements(said)))


def _elements(said: Any) -> list[Element]:
    return [
        (str(bridge), str(address), str(protocol), int(port))
        for item in said.get("nftables", ())
        for element in item.get("set", {}).get("elem", ())
        for bridge, address, protocol, port in [element["concat"]]
    ]


def _ways(ways: frozenset[Element]) -> str:
    """Exactly these, in the same transaction as the table."""
    lines = [
        f'add element inet {TABLE} {LICENCES} {{ "{bridge}" . {address} . {protocol} . {port} }}'
        for bridge, address, protocol, port in sorted(ways)
    ]
    return "\n".join([f"flush set inet {TABLE} {LICENCES}", *lines, ""])
