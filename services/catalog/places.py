"""On which machines a project's run may be: pools by role, GPU models by name (CG-2).

A wish that cannot be is refused in words. A default that cannot be (the project's own, from before a pool was
closed or taken out of the settings, or run by somebody of another role) gives way to what is open.
"""

from __future__ import annotations

from collections.abc import Iterable

from galilean.errors import UserError, mark
from galilean.settings import Settings

DEFAULT = "default"


def open_pools(settings: Settings, roles: Iterable[str]) -> tuple[str, ...]:
    """The pools that somebody of these roles may use, in the order of the settings."""
    mine = set(roles)
    return tuple(
        name for name, pool in settings.pools.items() if not pool.open_to or mine & set(pool.open_to)
    )


def choose_pool(settings: Settings, roles: Iterable[str], asked: str | None, own: str | None) -> str:
    """The pool of a run: what was asked for, else the project's, else ``default``, else the first that is open.

    Raises
    ------
    UserError
        400 for a pool that does not exist; 403 for one that is closed to the role, or when all are.
    """
    allowed = open_pools(settings, roles)
    if asked is not None and asked not in settings.pools:
        raise UserError(400, mark("There is no pool “{pool}”."), pool=asked[:60])
    if asked is not None and asked not in allowed:
        raise UserError(
            403,
            mark("The pool “{pool}” is not open to your role. Choose one of: {known}."),
            pool=settings.pools[asked].title or asked,
            known=", ".join(allowed) or "–",
        )
    if not allowed:
        raise UserError(403, mark("No pool of machines is open to your role. Ask an administrator."))
    return next((pool for pool in (asked, own, DEFAULT) if pool in allowed), allowed[0])


def choose_gpu_model(settings: Settings, gpu: int, asked: str | None, own: str | None) -> str:
    """The GPU model of a run; empty = any, or no cards at all.

    Raises
    ------
    UserError
        400 for a model that does not exist.
    """
    if asked and asked not in settings.gpu_models:
        raise UserError(400, mark("There is no GPU model “{model}” here."), model=asked[:60])
    if not gpu:
        return ""
    if asked is not None:
        return asked
    return own if own and own in settings.gpu_models else ""


def gpu_counts(settings: Settings, model: str) -> tuple[int, ...]:
    """How many cards of a model a node may have, besides none; empty = any number.

    Where no model is named, what any of them allows.
    """
    if model:
        known = settings.gpu_models.get(model)
        return tuple(known.counts) if known else ()
    counts = [one.counts for one in settings.gpu_models.values()]
    return tuple(sorted({count for some in counts for count in some})) if counts and all(counts) else ()


def check_gpu_count(settings: Settings, gpu: int, model: str) -> None:
    """Refuse a number of cards that the model does not come in (AP-10).

    Raises
    ------
    UserError
        400, with the numbers that can be.
    """
    counts = gpu_counts(settings, model)
    if not gpu or not counts or gpu in counts:
        return
    known = settings.gpu_models.get(model)
    raise UserError(
        400,
        mark("A node can have {counts} cards of {model}; {asked} were asked for."),
        counts=", ".join(map(str, counts)),
        model=(known.title or model) if known else "GPU",
        asked=gpu,
        reason="gpu_count",
    )
