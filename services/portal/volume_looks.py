"""Volumes looked at where they are used: on Kubernetes on every machine that takes nodes (CG-37).

The hub makes the pods that look (:mod:`hub_config.claim_looks`). On one machine whoever asks sees what nodes see.
Page, API and command register a volume by the same steps: what it may be (:func:`wanted`), its directory here, then
every machine (:func:`seen_by_machines`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.hubapi import HubAPI
from galilean.settings import Settings
from galilean.web.context import Portal
from galilean.web.language import translate
from services.catalog import placement, volumes
from services.catalog.placement import VolumeRow
from services.machines.rules import Machine, Pool, pools_of
from services.machines.store import all_machines
from services.machines.the_settings import pools_in
from services.portal.api.dataset_models import OnMachine
from services.portal.api.projects import catalogue

#: The hub gives each machine a minute.
SECONDS = 75.0
NAMED_MOST = 10
_SAID = {
    "absent": mark("it is not mounted there"),
    "other": mark("the volume “{why}” is mounted there"),
    "silent": mark("it could not be mounted there within a minute"),
    "refused": mark("nothing could be started there: {why}"),
}


def to_look_at(machines: Iterable[Machine], pools: Sequence[Pool]) -> list[str]:
    """Machines to which new nodes may come: those of any pool that work and are not closed."""
    return [machine.name for machine in machines if machine.takes_nodes and pools_of(machine, pools)]


def wanted(settings: Settings, volume: VolumeRow, others: Sequence[VolumeRow]) -> VolumeRow:
    """A volume as it may be registered on this site.

    Raises
    ------
    UserError
        400 for what it cannot be; 409 when its name or place is another's.
    """
    kind = "claim" if settings.backend == "kubernetes" else "directory"
    if volume.kind != kind:
        raise UserError(400, mark("With this backend a volume is of the kind “{kind}”."), kind=kind)
    volume = replace(volume, path=volume.path.rstrip("/") or "/")
    placement.check_volume(volume, others)
    path, state = Path(volume.path), settings.state.resolve()
    if path == state or (state in path.parents and state / "volumes" not in path.parents):
        raise UserError(
            400, mark("“{path}” belongs to the product. Give a directory of its own."), path=str(path)
        )
    return volume


async def on_machines(portal: Portal, volume: VolumeRow) -> list[OnMachine]:
    """What each machine has of a volume, by the machine's name.

    Raises
    ------
    UserError
        503 when neither hub nor Kubernetes answers; 400 for a claim that its namespace has not.
    """
    if volume.kind != "claim":
        try:
            await catalogue(portal).run_on(volume.id, volumes.check_mounted, Path(volume.path), volume.id)
        except UserError:
            return [_told("", {"problem": "absent"})]
        return [_told("", {})]
    return await seen_by_machines(portal.settings, portal.db, portal.hub, volume)


async def seen_by_machines(
    settings: Settings, database: Database, hub: HubAPI, volume: VolumeRow
) -> list[OnMachine]:
    """What each machine has of a claim, by the machine's name.

    Parameters
    ----------
    settings, database
        Of the site.
    hub
        Entered as who may have claims looked at.
    volume
        Of the kind ``claim``.

    Raises
    ------
    UserError
        As :func:`on_machines`.
    """
    machines = to_look_at(await database.run_read(all_machines), pools_in(settings))
    answer = await hub.request(
        "POST",
        "/galilean/look",
        json={"claim": volume.claim, "volume": volume.id, "machines": machines},
        seconds=SECONDS,
    )
    return [_told(machine, seen) for machine, seen in sorted(answer.json().items())]


def need_everywhere(volume_id: str, seen: Sequence[OnMachine]) -> None:
    """Refuse a volume that some machine has not.

    Raises
    ------
    UserError
        409, with the machines and what each said.
    """
    bad = [one for one in seen if one.problem]
    if not bad:
        return
    told = "; ".join(f"{one.machine}: {one.said}" if one.machine else one.said for one in bad[:NAMED_MOST])
    raise UserError(
        409,
        mark("“{volume}” cannot be used on every machine ({bad} of {all}). {told}"),
        volume=volume_id,
        bad=len(bad),
        all=len(seen),
        told=told + (" …" if len(bad) > NAMED_MOST else ""),
        reason="not-everywhere",
    )


def _told(machine: str, seen: Mapping[str, Any]) -> OnMachine:
    problem, why = str(seen.get("problem") or ""), str(seen.get("why") or "")
    said = translate(_SAID[problem]).replace("{why}", why) if problem else ""
    return OnMachine(machine=machine, problem=problem, said=said)  # type: ignore[arg-type]  # one of the hub's words
