"""What one may hold, holds, and has left, as the API shows it (TI-14)."""

from __future__ import annotations

from extensions.quota.standing import Standing
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.visitor import Visitor
from services.portal.api import models, quota_models
from services.portal.my_limits import limits_and_rest
from services.portal.quotas import who_has


async def my_limits(portal: Portal, person: Visitor) -> quota_models.MyLimits:
    """What one may hold, holds, and has left."""
    mine = await limits_and_rest(portal, person.name, person.roles)
    limits, held = mine.limits, mine.held

    def left(resource: str, used: int) -> int | None:
        amount = limits.amount(resource)
        return None if amount is None else max(amount - used, 0)

    def cpus(millicores: int | None) -> float | None:
        return None if millicores is None else millicores / 1000

    return quota_models.MyLimits(
        roles=list(person.roles),
        per_node=models.AmountsPerNode(
            nodes=limits.amount("nodes"),
            cpu=cpus(limits.amount("cpu")),
            memory_bytes=limits.amount("memory"),
            gpu=limits.amount("gpu"),
            storage_bytes=limits.amount("storage"),
        ),
        together=models.Amounts(
            clusters=limits.amount("clusters"),
            cpu=cpus(limits.amount("total_cpu")),
            memory_bytes=limits.amount("total_memory"),
            gpu=limits.amount("total_gpu"),
        ),
        held=models.Amounts(
            clusters=held.clusters,
            cpu=held.cpu_millicores / 1000,
            memory_bytes=held.memory_bytes,
            gpu=held.gpu,
        ),
        remaining=models.Amounts(
            clusters=left("clusters", held.clusters),
            cpu=cpus(left("total_cpu", held.cpu_millicores)),
            memory_bytes=left("total_memory", held.memory_bytes),
            gpu=left("total_gpu", held.gpu),
        ),
        upload_bytes=limits.amount("upload"),
        releases=list(mine.offered),
        items=[limit_entry(portal, item) for item in mine.standing],
    )


async def limits_of_person(portal: Portal, user: str) -> quota_models.PersonLimits:
    """The same of somebody else, for administrators.

    Raises
    ------
    UserError
        404 for somebody who has no account.
    """
    everybody = await who_has(portal).everybody()
    roles = everybody.roles_of.get(user)
    if roles is None:
        raise UserError(404, mark("Nobody here is called “{name}”."), name=user[:64])
    mine = await limits_and_rest(portal, user, roles)
    return quota_models.PersonLimits(
        user=user,
        roles=list(roles),
        items=[limit_entry(portal, item) for item in mine.standing],
        releases=list(mine.offered),
    )


def limit_entry(portal: Portal, item: Standing) -> quota_models.LimitEntry:
    """One limit as the API shows it."""
    return quota_models.LimitEntry(
        measure=str(item.measure),
        unit=item.measure.unit,
        amount=item.amount,
        held=item.used,
        remaining=item.left,
        renews_on=item.renews_on or None,
        role=item.role,
        exception=quota_models.exception_model(item.exception, portal.settings.site.zone, portal.clock())
        if item.exception
        else None,
    )
