"""What really exists of the process backend, told from outside the hub (design §4).

Two sources, taken together: the directories below ``clusters/`` tell of nodes that are or were; the marks
that processes carry tell of those whose directory is lost. Complete or an exception.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from spawner.inventory import Sighting
from spawner.node.marks import Mark
from spawner.process.family import Seen, end_family, look
from spawner.process.handles import Handle
from spawner.process.layout import ClusterDirectory
from spawner.process.nodes import look_at

#: A directory without any node is a start that is just going on; after this long it is a leftover.
EMPTY_SECONDS = 60.0


class ProcessInventory:
    """Lists and removes nodes of one state directory; implements :class:`spawner.inventory.Inventory`.

    Parameters
    ----------
    state_dir
        The state directory.
    """

    def __init__(self, state_dir: Path | str) -> None:
        self._clusters = Path(state_dir).absolute() / "clusters"

    async def inventory(self) -> list[Sighting]:
        """Everything that exists, dead nodes whose directory is there still included.

        Raises
        ------
        OSError
            When a directory or ``/proc`` cannot be read.
        """
        return await asyncio.to_thread(self._look, datetime.now(UTC))

    async def remove(self, sighting: Sighting) -> None:
        """End the node's processes, kernels and terminals too, and remove what it left; gone is success.

        Raises
        ------
        StillThere, OSError
            When it cannot be sure that it is gone.
        """
        await asyncio.to_thread(self._remove, sighting)

    def _look(self, now: datetime) -> list[Sighting]:
        seen = look()  # first: a node that is made meanwhile is then in its directory
        found: dict[tuple[str, str, int], Sighting] = {}
        if self._clusters.is_dir():
            for path in sorted(self._clusters.iterdir()):
                if path.is_dir() and path.name != ".locks":
                    for sighting in self._in_directory(ClusterDirectory(path), now):
                        found[sighting.handle["directory"], sighting.run, sighting.rank] = sighting
        for sighting in self._marked(seen):
            key = (sighting.handle["directory"], sighting.run, sighting.rank)
            found.setdefault(key, sighting)  # a node that ended has ended, whatever it left running
        return list(found.values())

    def _in_directory(self, directory: ClusterDirectory, now: datetime) -> list[Sighting]:
        run = directory.run()
        if run is None:
            return []
        looks = look_at(directory)
        nodes = directory.nodes()
        if not looks:
            made_at = datetime.fromisoformat(run["made_at"])
            if now - made_at < timedelta(seconds=EMPTY_SECONDS):
                return []
            return [self._sighting(directory, run, run["run"], 0, state="ended", started_at=made_at)]
        found: list[Sighting] = []
        for rank, node in sorted(looks.items()):
            started_at = Handle.from_dict(nodes[rank]).started_at()
            found.append(
                self._sighting(
                    directory,
                    run,
                    nodes[rank]["run"],
                    rank,
                    state="alive" if node.alive else "ended",
                    started_at=started_at,
                    finished_at=node.ended_at,
                )
            )
        return found

    @staticmethod
    def _sighting(
        directory: ClusterDirectory,
        run: dict[str, str],
        run_id: str,
        rank: int,
        *,
        state: str,
        started_at: datetime | None,
        finished_at: datetime | None = None,
    ) -> Sighting:
        return Sighting(
            user=run["user"],
            server=run["server"],
            run=run_id,
            rank=rank,
            state=state,
            started_at=started_at,
            finished_at=finished_at,
            handle={"directory": str(directory.path)},
        )

    def _marked(self, seen: list[Seen]) -> list[Sighting]:
        """One sighting for each node of which any process runs, the node itself or what it left behind."""
        found: dict[Mark, Sighting] = {}
        for item in sorted(seen, key=lambda item: (not item.node, item.stat.start_ticks)):
            if item.mark is None or Path(item.mark.directory).parent != self._clusters:
                continue
            if item.mark not in found:
                found[item.mark] = Sighting(
                    user=item.mark.user,
                    server=item.mark.server,
                    run=item.mark.run,
                    rank=item.mark.rank,
                    started_at=item.handle.started_at(),
                    handle={"directory": item.mark.directory},
                )
        return list(found.values())

    def _remove(self, sighting: Sighting) -> None:
        path = Path(sighting.handle["directory"])
        if path.parent != self._clusters:
            raise ValueError(f"{path} is not a cluster of this state directory")
        directory = ClusterDirectory(path)

        def belongs(mark: Mark) -> bool:
            return (mark.directory, mark.run, mark.rank) == (str(path), sighting.run, sighting.rank)

        with directory.locked():
            said = directory.nodes().get(sighting.rank)
            roots = [Handle.from_dict(said)] if said and said.get("run") == sighting.run else []
        end_family(belongs, roots)
        with directory.locked():
            said = directory.nodes().get(sighting.rank)
            if said and said.get("run") == sighting.run:
                directory.node_file(sighting.rank).unlink(missing_ok=True)
                directory.exit_file(sighting.rank).unlink(missing_ok=True)
            run = directory.run()
            if run is not None and run.get("run") == sighting.run and not directory.nodes():
                directory.remove()
