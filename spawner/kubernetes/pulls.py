"""Which nodes of a start wait for their image: the kubelets' events tell it, and nothing else does.

The status of a pod says *ContainerCreating* from the moment it has its machine, and no more until the image is there,
which may be minutes. So the events of a pod are asked for that does not run some seconds after it was placed; those that
start at once, which is nearly all, cost no request. Whoever may not read events tells nothing, and starts all the same.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spawner.kubernetes.api import APIError, KubeAPI, is_passing

AFTER_SECONDS, AGAIN_SECONDS = 3.0, 5.0
_IMAGE = re.compile(r'Pulling image "([^"]+)"')


class Pulls:
    """What the nodes of a start wait for, as far as it is an image.

    Parameters
    ----------
    api
        The namespace.
    tell
        Called when a node is found to wait.
    log
        Told when events may not be read.
    """

    def __init__(self, api: KubeAPI, tell: Callable[[], None], *, log: logging.Logger) -> None:
        self._api, self._tell, self._log = api, tell, log
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._images: dict[int, str] = {}

    def image(self, rank: int) -> str:
        """The image that a node's machine is fetching; empty when that is not known."""
        return self._images.get(rank, "")

    def want(self, rank: int, uid: str) -> None:
        """Look for the events of a node's pod, once."""
        if rank not in self._asked:
            self._asked[rank] = asyncio.ensure_future(self._look(rank, uid))

    def over(self, rank: int) -> None:
        """The node's container runs."""
        self._images.pop(rank, None)
        if task := self._asked.get(rank):
            task.cancel()

    def close(self) -> None:
        """Look for nothing any more."""
        for task in self._asked.values():
            task.cancel()

    async def _look(self, rank: int, uid: str) -> None:
        await asyncio.sleep(AFTER_SECONDS)
        while True:
            try:
                found, _ = await self._api.list(
                    "Event", "", fields=f"involvedObject.uid={uid},reason=Pulling"
                )
            except Exception as error:
                if not is_passing(error):
                    self._log.info("Nobody can be told that images are being fetched: %s", _said(error))
                    return
                found = []
            if image := _newest(found):
                self._images[rank] = image
                self._tell()
                return
            await asyncio.sleep(AGAIN_SECONDS)


def _newest(events: Sequence[Mapping[str, Any]]) -> str:
    """The image of the last of them; a pod has one for each of its containers."""
    told = [
        (str(event.get("lastTimestamp") or ""), _IMAGE.search(event.get("message") or "")) for event in events
    ]
    images = [(at, match[1]) for at, match in told if match]
    return max(images)[1] if images else ""


def _said(error: Exception) -> str:
    return error.message if isinstance(error, APIError) else repr(error)
