"""What is filled in in the Run drawer: the wish to begin with, and what of it may be had (CG-3, CG-30); pure."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from extensions.quota.limits import Limits
from galilean.amounts import parse_bytes, parse_millicores
from galilean.settings import Settings

#: Where the person has no limit the fields still end somewhere.
NODES_MOST, CARDS_MOST = 1000, 64


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is filled in; amounts per node."""

    nodes: int
    cpu_millicores: int
    memory_bytes: int
    gpu: int
    environment: str
    release: str
    on_node_loss: str = "release"
    pool: str = ""
    gpu_model: str = ""
    storage_bytes: int = 0

    @property
    def release_policy(self) -> str:
        return self.release

    def as_options(self) -> dict[str, Any]:
        """The choice as ``user_options`` of the hub's start call (design §10), without the project."""
        return {
            "nodes": self.nodes,
            "cpu": self.cpu_millicores / 1000,
            "memory": self.memory_bytes,
            "gpu": self.gpu,
            "environment": self.environment,
            "release": self.release,
            "on_node_loss": self.on_node_loss,
            **({"storage": self.storage_bytes} if self.storage_bytes else {}),
            **({"pool": self.pool} if self.pool else {}),
            **({"gpu_model": self.gpu_model} if self.gpu and self.gpu_model else {}),
        }


def last_choice(
    settings: Settings,
    environment: str,
    request: Mapping[str, Any] | None,
    environments: Container[str] | None = None,
) -> Choice:
    """The choice to begin with: the last request of the project, else the site's defaults.

    Parameters
    ----------
    settings
        The site's.
    environment
        The project's default environment; empty or gone means the site's.
    request
        ``clusters.request`` of the last run or ``projects.default_request``; either spelling of the keys.
    environments
        That the person may pick; left out = those of the settings.
    """
    defaults = settings.defaults
    there: Container[Any] = settings.environments if environments is None else environments
    known = environment if environment in there else defaults.environment
    choice = Choice(
        nodes=defaults.nodes,
        cpu_millicores=defaults.cpu,
        memory_bytes=defaults.memory,
        gpu=defaults.gpu,
        environment=known,
        release=defaults.release,
        storage_bytes=defaults.storage,
    )
    if not request:
        return choice
    values: dict[str, Any] = {}
    keys = (
        "nodes",
        "gpu",
        "environment",
        "release",
        "on_node_loss",
        "pool",
        "gpu_model",
        "cpu_millicores",
        "memory_bytes",
        "storage_bytes",
    )
    for key in keys:
        if request.get(key) is not None:
            values[key] = request[key]
    if request.get("cpu") is not None:
        values["cpu_millicores"] = parse_millicores(request["cpu"])
    if request.get("memory") is not None:
        values["memory_bytes"] = parse_bytes(request["memory"])
    if request.get("storage") is not None:
        values["storage_bytes"] = parse_bytes(request["storage"])
    if values.get("environment") not in there:
        values.pop("environment", None)
    if values.get("gpu_model") not in settings.gpu_models:
        values.pop("gpu_model", None)
    return replace(choice, **values)


def clamp(choice: Choice, limits: Limits, offered: Sequence[str], default: str) -> Choice:
    """The choice cut down to what one cluster of this person may be; never below one node.

    Parameters
    ----------
    choice, limits
        The wish, and the person's limits.
    offered, default
        Release policies that the person may pick, and the one of them that is filled in.
    """
    return replace(
        choice,
        nodes=max(1, min(choice.nodes, limits.nodes)),
        cpu_millicores=min(choice.cpu_millicores, limits.cpu) or choice.cpu_millicores,
        memory_bytes=min(choice.memory_bytes, limits.memory) or choice.memory_bytes,
        storage_bytes=min(choice.storage_bytes, limits.storage),
        gpu=min(choice.gpu, cards_most(limits, (choice.gpu_model,))),
        release=choice.release if choice.release in offered else default,
    )


def cards_most(limits: Limits, models: Sequence[str]) -> int:
    """The most cards that one node may have, of whichever of these models (empty = any) gives most."""
    return max(
        (min(_least(limits, "gpu", model), _least(limits, "total_gpu", model)) for model in models), default=0
    )


def _least(limits: Limits, resource: str, model: str) -> int:
    amount = limits.at_most(resource, "", model)
    return CARDS_MOST if amount is None else amount
