"""Hears when somebody edits or deletes the policy of a cluster, so that nobody need look for it all the time.

Only a call to look: what is wrong, if anything, is found by whoever looks (:mod:`spawner.kubernetes.mender`), and what
is missed while the API server is away is found when it next looks by itself. Never gives up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from spawner.kubernetes import names
from spawner.kubernetes.api import APIError, KubeAPI, is_passing
from spawner.kubernetes.watch import SILENCE_SECONDS, STREAM_SECONDS

PAUSE_SECONDS = 5.0


async def follow_policies(api: KubeAPI, touched: Callable[[str], None], *, log: logging.Logger) -> None:
    """Call ``touched`` with the name of each policy that is changed or goes, for ever."""
    told = False
    while True:
        try:
            _, version = await api.list("NetworkPolicy", names.RUN, only_metadata=True)
            told = False
            while True:
                version = await _stream(api, version, touched)
        except Exception as error:
            gone_by = isinstance(error, APIError) and error.status == 410
            if not gone_by and not told and not is_passing(error):
                told = True
                log.warning(
                    "Policies of clusters cannot be watched, so they are looked at in turn: %r", error
                )
            await asyncio.sleep(PAUSE_SECONDS)


async def _stream(api: KubeAPI, version: str, touched: Callable[[str], None]) -> str:
    """Follow one stream to its end; the version that it ended with."""
    events = api.watch(
        "NetworkPolicy", names.RUN, version, seconds=STREAM_SECONDS, silence_seconds=SILENCE_SECONDS
    )
    async with aclosing(events):  # pyright: ignore[reportArgumentType]
        async for event in events:
            kind = event["type"]
            if kind == "OPEN":
                continue
            if kind == "ERROR":
                said = event["object"]
                raise APIError(int(said.get("code", 500)), str(said.get("message", "")))
            version = event["object"]["metadata"]["resourceVersion"]
            if kind in ("MODIFIED", "DELETED"):
                touched(event["object"]["metadata"]["name"])
    return version
