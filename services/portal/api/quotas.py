"""Limits, exceptions and rules of release by the API (CG-28 … CG-30, TI-14): the same functions as the pages'."""

from __future__ import annotations

from typing import Any

from extensions.quota.measures import Measure
from galilean.errors import UserError, mark
from galilean.web.handlers import APIHandler
from galilean.web.paging import Cursor
from services.portal import quotas, release_rules
from services.portal.api import limits
from services.portal.api import quota_models as models
from services.portal.api.base import Handler
from services.portal.api.models import ListOf
from services.portal.api.operation import PAGED, Operation
from services.portal.measures_said import amount_said, parse_amount
from services.portal.quota_matrix import amount_in, groups_of
from services.portal.quotas import Difference, Wish
from services.portal.release_rules import RuleDifference, RuleWish
from services.portal.release_said import EVERYBODY


def wish_of(portal: Any, wish: models.QuotaWish) -> Wish:
    """A wish as it was sent, read.

    Raises
    ------
    UserError
        400 for an unknown measure, or an amount that cannot be read.
    """
    measure = quotas.known(portal, Measure.parse(wish.measure))
    more = {"was": parse_amount(measure, wish.was)} if "was" in wish.model_fields_set else {}
    return Wish(role=wish.role, measure=measure, amount=parse_amount(measure, wish.amount), **more)


def _difference(found: Difference, *, applied: bool) -> models.QuotaDifference:
    return models.QuotaDifference(
        applied=applied,
        changes=[
            models.QuotaChange(
                role=change.role,
                measure=str(change.measure),
                unit=change.measure.unit,
                before=change.before,
                after=change.after,
            )
            for change in found.changes
        ],
        people=found.effect.people,
        at_limit=dict(found.effect.at_limit),
    )


class QuotaHandler(Handler):
    right = "quotas:manage"

    def shown(self, granted: Any) -> models.QuotaException:
        """An exception as the API shows it."""
        return models.exception_model(granted, self.portal.settings.site.zone, self.portal.clock())


class Quotas(QuotaHandler):
    async def get(self) -> None:
        book = await self.portal.db.run_read(quotas.read_book)
        everybody = await quotas.who_has(self.portal).everybody()
        rows = [row for group in groups_of(book.matrix, list(book.roles)) for row in group.rows]
        self.write_json(
            models.Quotas(
                version=book.version,
                roles=[
                    models.QuotaRole(name=head.name, title=head.title, people=head.people)
                    for head in quotas.heads_of(book, everybody)
                ],
                items=[
                    models.Quota(
                        role=role,
                        measure=str(row.measure),
                        resource=row.measure.resource,
                        pool=row.measure.pool,
                        gpu_model=row.measure.gpu_model,
                        period=row.measure.period,
                        unit=row.measure.unit,
                        amount=amount_in(book.matrix[role], row.measure),
                        text=amount_said(row.measure, amount_in(book.matrix[role], row.measure)).text(
                            self.translate
                        ),
                    )
                    for row in rows
                    for role in book.roles
                ],
            )
        )

    async def patch(self) -> None:
        body = self.body(models.QuotaChanges)
        wishes = [wish_of(self.portal, wish) for wish in body.changes]
        if body.dry_run:
            found = await quotas.weigh(self.portal, wishes)
        else:
            found = await quotas.apply(
                self.portal, self.person, wishes, address=self.address, reason=body.reason
            )
        self.write_json(_difference(found, applied=not body.dry_run))


class Exceptions(QuotaHandler):
    async def get(self) -> None:
        limit, cursor, offset = self.limit(), self.query("cursor"), 0
        if cursor:
            (begin,) = Cursor.decode(cursor, 1)
            if not isinstance(begin, int) or not 0 <= begin <= 10**9:
                raise UserError(400, mark("This page of the list cannot be found. Begin at the first page."))
            offset = begin
        page = await quotas.exceptions(
            self.portal,
            text=self.query("q")[:100],
            user=self.query("user") or None,
            over_too=self.word("state", "open", "all") == "all",
            offset=offset,
            limit=limit,
        )
        following = Cursor.encode(offset + limit) if offset + limit < page.count else None
        self.write_json(
            ListOf[models.QuotaException](
                items=[self.shown(view.granted) for view in page.views], next=following
            )
        )

    async def post(self) -> None:
        body = self.body(models.NewException)
        measure = quotas.known(self.portal, Measure.parse(body.measure))
        made = await quotas.give(
            self.portal,
            self.person,
            user=body.user,
            measure=measure,
            amount=parse_amount(measure, body.amount),
            reason=body.reason,
            expires_at=quotas.parse_end(body.until, self.portal.settings.site.zone, self.portal.clock()),
            address=self.address,
        )
        self.portal.parts["watcher"].tell(made.user, "clusters")
        self.set_header("Location", f"{self.portal.prefix}api/v1/quota-exceptions/{made.id}")
        self.write_json(self.shown(made), 201)


class OneException(QuotaHandler):
    async def get(self, exception_id: str) -> None:
        self.write_json(self.shown((await quotas.exception(self.portal, exception_id)).granted))

    async def patch(self, exception_id: str) -> None:
        body = self.body(models.ExceptionChange)
        old = (await quotas.exception(self.portal, exception_id)).granted
        changes: dict[str, Any] = {}
        if "amount" in body.model_fields_set:
            changes["amount"] = parse_amount(old.measure, body.amount)
        if body.reason is not None:
            changes["reason"] = body.reason
        if "until" in body.model_fields_set:
            zone, now = self.portal.settings.site.zone, self.portal.clock()
            changes["expires_at"] = quotas.parse_end(body.until or "", zone, now)
        made = await quotas.change(self.portal, self.person, exception_id, address=self.address, **changes)
        self.portal.parts["watcher"].tell(made.user, "clusters")
        self.write_json(self.shown(made))

    async def delete(self, exception_id: str) -> None:
        ended = await quotas.end(self.portal, self.person, exception_id, address=self.address)
        self.portal.parts["watcher"].tell(ended.user, "clusters")
        self.write_json(self.shown(ended))


class MyLimits(Handler):
    async def get(self) -> None:
        self.write_json(await limits.my_limits(self.portal, self.person))


class LimitsOfPerson(Handler):
    """Of somebody else only with the right; of oneself always."""

    async def get(self, name: str) -> None:
        rights = ("quotas:manage", "people:manage")
        if name != self.person.name and not any(self.person.may(right) for right in rights):
            raise UserError(403, mark("You see your own limits only."))
        self.write_json(await limits.limits_of_person(self.portal, name))


class ReleaseRules(Handler):
    right = release_rules.RIGHT

    async def get(self) -> None:
        book = await self.portal.db.run_read(release_rules.read_book)
        site = book.rules.site
        self.write_json(
            models.ReleaseRules(
                everybody=models.SiteRelease(
                    offered=list(site.offered),
                    default=site.default,
                    most_seconds=site.most_seconds,
                    idle_seconds=site.idle_seconds,
                    idle_percent=site.idle_percent,
                    grace_seconds=site.grace_seconds,
                    extend_seconds=site.extend_seconds,
                ),
                roles={
                    role: models.RoleRelease.model_validate(
                        {field: _plain(book.value(role, field)) for field in models.RoleRelease.model_fields}
                    )
                    for role in book.roles
                },
            )
        )

    async def patch(self) -> None:
        body = self.body(models.ReleaseRuleChanges)
        wishes = []
        for role, values in {EVERYBODY: body.everybody, **body.roles}.items():
            if values is None:
                continue
            for field in sorted(values.model_fields_set):
                value = getattr(values, field)
                wishes.append(
                    RuleWish(role=role, field=field, value=tuple(value) if isinstance(value, list) else value)
                )
        if body.dry_run:
            found = await release_rules.weigh(self.portal, wishes)
        else:
            found = await release_rules.apply(
                self.portal, self.person, wishes, address=self.address, reason=body.reason
            )
        self.write_json(_release_difference(found, applied=not body.dry_run))


def _release_difference(found: RuleDifference, *, applied: bool) -> models.ReleaseDifference:
    return models.ReleaseDifference(
        applied=applied,
        changes=[
            models.ReleaseRuleChange(
                role=change.role, field=change.field, before=_plain(change.before), after=_plain(change.after)
            )
            for change in found.changes
        ],
        people=found.people,
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/api/v1/quotas", Quotas),
        (r"/api/v1/quota-exceptions", Exceptions),
        (r"/api/v1/quota-exceptions/([0-9A-Z]{26})", OneException),
        (r"/api/v1/release-rules", ReleaseRules),
        (r"/api/v1/limits", MyLimits),
        (r"/api/v1/people/([^/]+)/limits", LimitsOfPerson),
    ]


_EXCEPTION = "/quota-exceptions/{id}"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/limits",
        summary="What one may hold, holds and has left",
        answers={200: models.MyLimits},
    ),
    Operation(
        method="get",
        path="/people/{name}/limits",
        summary="What somebody may hold, holds and has left (one's own, or with the right)",
        answers={200: models.PersonLimits},
    ),
    Operation(method="get", path="/quotas", summary="The limits of all roles", answers={200: models.Quotas}),
    Operation(
        method="patch",
        path="/quotas",
        summary="Change limits of roles, all or none; or only say whom it would touch",
        takes=models.QuotaChanges,
        answers={200: models.QuotaDifference},
    ),
    Operation(
        method="get",
        path="/quota-exceptions",
        summary="List exceptions, the newest first",
        query={
            "q": "Part of a name, of what it is, or of the reason.",
            "user": "Of this person only.",
            "state": "open (default) or all.",
            **PAGED,
        },
        answers={200: ListOf[models.QuotaException]},
    ),
    Operation(
        method="post",
        path="/quota-exceptions",
        summary="Let a person hold another amount than the role says; one of the same measure ends",
        takes=models.NewException,
        answers={201: models.QuotaException},
    ),
    Operation(
        method="get", path=_EXCEPTION, summary="Look at an exception", answers={200: models.QuotaException}
    ),
    Operation(
        method="patch",
        path=_EXCEPTION,
        summary="Change an exception's amount, reason or end",
        takes=models.ExceptionChange,
        answers={200: models.QuotaException},
    ),
    Operation(
        method="delete",
        path=_EXCEPTION,
        summary="End an exception; it stays known, and what runs goes on",
        answers={200: models.QuotaException},
    ),
    Operation(
        method="get",
        path="/release-rules",
        summary="Which release policies are offered to whom, and what bounds them",
        answers={200: models.ReleaseRules},
    ),
    Operation(
        method="patch",
        path="/release-rules",
        summary="Change rules of release, all or none; or only say whom it would touch",
        takes=models.ReleaseRuleChanges,
        answers={200: models.ReleaseDifference},
    ),
)
