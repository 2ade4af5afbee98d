"""Administration → Release policies: what is offered to whom, and when a cluster goes back at the latest (CG-30)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from galilean.errors import UserError, mark
from galilean.settings import RELEASE_POLICIES
from galilean.web.handlers import PageHandler
from galilean.web.problems import BodyError
from services.portal import quotas, release_rules
from services.portal.api import quota_models as models
from services.portal.quota_matrix import RoleHead
from services.portal.release_rules import RuleBook, RuleWish
from services.portal.release_said import (
    AS_EVERYBODY,
    EVERYBODY,
    FIELDS,
    NAMES,
    SITE_FIELDS,
    explained,
    hint,
    parse_value,
    short_name,
    value_said,
    value_typed,
)

GROUPS = (
    (mark("What people may choose"), ("offered", "default")),
    (mark("The end of everything"), ("most_seconds", "idle_seconds", "idle_percent")),
    (mark("For everybody alike"), SITE_FIELDS),
)


@dataclass(frozen=True, kw_only=True)
class RuleCell:
    """A value of a role, or of everybody."""

    role: str
    field: str
    value: Any
    shared: Any

    @property
    def of_role(self) -> bool:
        return self.role != EVERYBODY

    @property
    def said(self) -> Any:
        return value_said(self.field, self.value, role=self.of_role)

    @property
    def typed(self) -> str:
        return value_typed(self.field, self.value, role=self.of_role)

    @property
    def base(self) -> str:
        """What is ticked at first where a role is as everybody."""
        return value_typed(self.field, self.shared, role=False)

    @property
    def options(self) -> str:
        """The list to choose from, if it is chosen."""
        return {"offered": "offered-list", "default": "default-list"}.get(self.field, "")

    @property
    def pale(self) -> bool:
        return self.value is None or (not self.value and self.field.endswith("_seconds"))


class RulePage(PageHandler):
    """What the handlers share."""

    right = release_rules.RIGHT

    def words(self) -> dict[str, Any]:
        """What all templates of this module use."""
        return {
            "root": f"{self.portal.prefix}admin/release",
            "said": lambda told: told.text(self.translate) if told else "",
            "everybody": EVERYBODY,
            "as_everybody": AS_EVERYBODY,
            "policies": RELEASE_POLICIES,
            "hint": hint,
            "short_name": lambda name: short_name(name).text(self.translate),
        }

    async def matrix(self) -> dict[str, Any]:
        """What ``admin_release_matrix.html`` shows."""
        portal = self.portal
        book = await portal.db.run_read(release_rules.read_book)
        everybody = await quotas.who_has(portal).everybody()
        heads = [
            RoleHead(
                name=EVERYBODY, title=mark("Everybody"), people=sum(map(bool, everybody.roles_of.values()))
            ),
            *(
                RoleHead(name=name, title=row.title or name.capitalize(), people=len(everybody.of(name)))
                for name, row in book.roles.items()
            ),
        ]
        site = book.rules.site
        return {
            **self.words(),
            "heads": heads,
            "groups": [
                (
                    title,
                    [
                        (field, NAMES[field], [self._cell(book, head.name, field) for head in heads])
                        for field in fields
                    ],
                )
                for title, fields in GROUPS
            ],
            "explained": [
                (name, explained(name, site.grace_seconds))
                for name in RELEASE_POLICIES
                if name in ("auto", "auto-when-done", "manual", "2h")
            ],
            "offered_somewhere": set(site.offered).union(
                *(rule.offered or () for rule in book.rules.roles.values())
            ),
        }

    def _cell(self, book: RuleBook, role: str, field: str) -> RuleCell | None:
        if role != EVERYBODY and field not in FIELDS:
            return None
        return RuleCell(
            role=role, field=field, value=book.value(role, field), shared=book.value(EVERYBODY, field)
        )


class ReleaseRules(RulePage):
    """The page."""

    async def get(self) -> None:
        await self.render_page("admin_release.html", **await self.matrix())


class ReleaseMatrix(RulePage):
    """The table again, after changes counted."""

    async def get(self) -> None:
        await self.render_fragment("admin_release_matrix.html", **await self.matrix())


class RuleChanges(RulePage):
    """What gathered changes come to; with ``dry_run`` off they count from then on."""

    async def post(self) -> None:
        try:
            body = models.QuotaChanges.model_validate_json(self.request.body)
        except ValidationError as error:
            raise BodyError(error) from error
        wishes: list[RuleWish] = []
        wrong: list[dict[str, str]] = []
        for wish in body.changes:
            try:
                wishes.append(_read(wish))
                if body.dry_run:
                    await release_rules.weigh(self.portal, wishes)
            except UserError as error:
                text = error.text(self.translate)
                if wishes and wishes[-1].role == wish.role and wishes[-1].field == wish.measure:
                    wishes.pop()
                wrong.append({"role": wish.role, "measure": wish.measure, "error": text})
        if wrong and not body.dry_run:
            raise UserError(400, mark("There are values that cannot be read. Nothing was changed."))
        if body.dry_run:
            found = await release_rules.weigh(self.portal, wishes)
        else:
            found = await release_rules.apply(
                self.portal, self.person, wishes, address=self.address, reason=body.reason
            )
        book = await self.portal.db.run_read(release_rules.read_book)
        titles = {name: row.title or name.capitalize() for name, row in book.roles.items()}
        count = len(found.changes)
        cells = [
            {
                "role": change.role,
                "measure": change.field,
                "old": value_said(change.field, change.before, role=change.role != EVERYBODY).text(
                    self.translate
                ),
                "new": value_said(change.field, change.after, role=change.role != EVERYBODY).text(
                    self.translate
                ),
                "typed": value_typed(change.field, change.after, role=change.role != EVERYBODY),
                "before": value_typed(change.field, change.before, role=change.role != EVERYBODY),
            }
            for change in found.changes
        ]
        bar = self.portal.jinja.get_template("admin_release_bar.html").render(
            {
                **self.base_namespace(),
                **self.words(),
                "cells": cells,
                "people": found.people,
                "names": NAMES,
                "titles": {**titles, EVERYBODY: mark("Everybody")},
            }
        )
        sentence = (
            mark("1 change counts from now on.") if count == 1 else mark("{n} changes count from now on.")
        )
        self.set_header("Content-Type", "application/json")
        self.finish(
            {
                "count": count,
                "bar": bar,
                "cells": cells,
                "wrong": wrong,
                "done": self.translate(sentence).format(n=count),
            }
        )


def _read(wish: models.QuotaWish) -> RuleWish:
    role = wish.role != EVERYBODY
    more = {}
    if "was" in wish.model_fields_set:
        more["was"] = parse_value(wish.measure, str(wish.was), role=role)
    value = parse_value(wish.measure, str(wish.amount), role=role)
    return RuleWish(role=wish.role, field=wish.measure, value=value, **more)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/admin/release", ReleaseRules),
        (r"/admin/release/matrix", ReleaseMatrix),
        (r"/admin/release/changes", RuleChanges),
    ]
