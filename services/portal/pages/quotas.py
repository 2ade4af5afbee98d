"""Administration → Quotas: the matrix of limits by role, and exceptions of single people (CG-28, CG-29, BX-10).

The page keeps what is typed until it is applied; the server says at each change what it comes to and whom it
touches. Nothing counts before *Apply*, and nothing that runs ever loses by it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from pydantic import ValidationError
from sqlalchemy import Connection, or_, select

from extensions.quota.measures import BUDGETS, PERIODS, RESOURCES, Measure
from galilean.errors import UserError, mark
from galilean.tables import audit_log
from galilean.web.handlers import PageHandler
from galilean.web.problems import BodyError
from services.portal import quotas
from services.portal.api import quota_models as models
from services.portal.api.quotas import wish_of
from services.portal.measures_said import (
    NO,
    NO_LIMIT,
    PERSONAL,
    YES,
    amount_said,
    amount_typed,
    name_of,
    parse_amount,
)
from services.portal.pages.table_view import TableView
from services.portal.quota_matrix import Change, groups_of
from services.portal.quotas import PAGE_SIZE, Wish, last_day

HISTORY_MOST = 100
FOUND_MOST = 8


@dataclass(frozen=True, kw_only=True)
class View(TableView):
    """Exceptions that hold; rows of the matrix that are shown before anything is said of them."""

    state: str = ""

    @classmethod
    def parse_filters(cls, query: dict[str, str]) -> dict[str, Any]:
        return {"state": "all" if query.get("state") == "all" else ""}

    def filters(self) -> dict[str, str]:
        return {"state": self.state}


class QuotaPage(PageHandler):
    """What the handlers share."""

    right = "quotas:manage"

    @property
    def root(self) -> str:
        return f"{self.portal.prefix}admin/quotas"

    def words(self) -> dict[str, Any]:
        """What all templates of this module use."""
        pools, gpu_models = quotas.pools_of(self.portal), quotas.models_of(self.portal)

        def measure_name(measure: Measure, full: bool = True) -> str:
            return name_of(measure, full=full, pools=pools, models=gpu_models).text(self.translate)

        return {
            "root": self.root,
            "said": lambda told: told.text(self.translate) if told else "",
            "measure_name": measure_name,
            "amount": lambda measure, value: amount_said(measure, value).text(self.translate),
            "typed": lambda measure, value: amount_typed(measure, value, self.translate),
            "pools": pools,
            "gpu_models": gpu_models,
            "zone": self.portal.settings.site.timezone,
        }

    def measure(self, text: str) -> Measure:
        """A measure of this site from its written form."""
        return quotas.known(self.portal, Measure.parse(text))

    def more_rows(self) -> list[Measure]:
        """Rows that the address asks for; what is none is left out."""
        found = []
        for text in self.get_query_arguments("row")[:20]:
            try:
                found.append(self.measure(text))
            except UserError:
                continue
        return found

    def view(self) -> View:
        return View.parse({key: self.get_query_argument(key) for key in self.request.query_arguments})

    async def matrix(self) -> dict[str, Any]:
        """What ``admin_quotas_matrix.html`` shows."""
        portal = self.portal
        book = await portal.db.run_read(quotas.read_book)
        everybody = await quotas.who_has(portal).everybody()
        more = self.more_rows()
        words = self.words()
        return {
            **words,
            "heads": quotas.heads_of(book, everybody),
            "groups": groups_of(
                book.matrix, list(book.roles), more=more, pools=words["pools"], models=words["gpu_models"]
            ),
            "asked_rows": [str(measure) for measure in more],
            "has_budget": any(m.resource in BUDGETS for limits in book.matrix.values() for m in limits),
        }

    async def exceptions(self, view: View) -> dict[str, Any]:
        """What ``admin_exceptions.html`` shows."""
        page = await quotas.exceptions(
            self.portal, text=view.text, over_too=view.state == "all", offset=view.offset
        )
        return {"view": view, "page": page, "page_size": PAGE_SIZE}

    def json_body(self) -> models.QuotaChanges:
        """The gathered changes that the page sends."""
        try:
            return models.QuotaChanges.model_validate_json(self.request.body)
        except ValidationError as error:
            raise BodyError(error) from error

    def write_json(self, value: dict[str, Any]) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(value)


class Quotas(QuotaPage):
    """The page; for htmx the table of exceptions alone."""

    async def get(self) -> None:
        view = self.view()
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_exceptions.html", **self.words(), **await self.exceptions(view))
            return
        await self.render_page("admin_quotas.html", **await self.matrix(), **await self.exceptions(view))


class Matrix(QuotaPage):
    """The matrix again, after changes counted."""

    async def get(self) -> None:
        await self.render_fragment("admin_quotas_matrix.html", **await self.matrix())


class Changes(QuotaPage):
    """What gathered changes come to; with ``dry_run`` off they count from then on."""

    async def post(self) -> None:
        body = self.json_body()
        wishes: list[Wish] = []
        wrong: list[dict[str, str]] = []
        for wish in body.changes:
            try:
                wishes.append(wish_of(self.portal, wish))
            except UserError as error:
                text = error.text(self.translate)
                wrong.append({"role": wish.role, "measure": wish.measure, "error": text})
        if wrong and not body.dry_run:
            raise UserError(400, mark("There are amounts that cannot be read. Nothing was changed."))
        if body.dry_run:
            found = await quotas.weigh(self.portal, wishes)
        else:
            found = await quotas.apply(
                self.portal, self.person, wishes, address=self.address, reason=body.reason
            )
        book = await self.portal.db.run_read(quotas.read_book)
        values = {**self.words(), "difference": found, "titles": book.titles, "sample": 6}
        bar = self.portal.jinja.get_template("admin_quotas_bar.html").render(
            {**self.base_namespace(), **values}
        )
        count = len(found.changes)
        sentence = (
            mark("1 change counts from now on.") if count == 1 else mark("{n} changes count from now on.")
        )
        self.write_json(
            {
                "count": count,
                "bar": bar,
                "cells": [self._cell(change) for change in found.changes],
                "wrong": wrong,
                "done": self.translate(sentence).format(n=count),
            }
        )

    def _cell(self, change: Change) -> dict[str, str]:
        return {
            "role": change.role,
            "measure": str(change.measure),
            "old": amount_said(change.measure, change.before).text(self.translate),
            "new": amount_said(change.measure, change.after).text(self.translate),
            "typed": amount_typed(change.measure, change.after, self.translate),
            "before": amount_typed(change.measure, change.before, self.translate),
        }


class AddRow(QuotaPage):
    """The dialog for a row that is narrower than the usual ones, or a budget over time."""

    async def get(self) -> None:
        resource = self.get_query_argument("resource", "")
        pool, model = self.get_query_argument("pool", ""), self.get_query_argument("gpu_model", "")
        period = self.get_query_argument("period", "")
        if not resource:
            await self.render_fragment(
                "admin_quotas_row.html",
                **self.words(),
                budget=bool(self.get_query_argument("budget", "")),
                resources=[
                    (name, name_of(Measure(name), full=True))
                    for name, entry in RESOURCES.items()
                    if not entry.budget and (entry.by_pool or entry.by_model)
                ],
                budgets=[
                    (Measure(name, "", "", p), name_of(Measure(name, "", "", p)))
                    for name in ("gpu_hours", "core_hours")
                    for p in PERIODS
                ],
                by_model=[name for name, entry in RESOURCES.items() if entry.by_model],
                rows=self.get_query_arguments("row")[:20],
            )
            return
        base = Measure.parse(resource)
        takes = RESOURCES[base.resource]
        measure = Measure(
            base.resource,
            pool if takes.by_pool else "",
            model if takes.by_model else "",
            base.period or period,
        )
        quotas.known(self.portal, measure)
        rows = [*self.get_query_arguments("row")[:19], str(measure)]
        self.set_header("HX-Redirect", f"{self.root}?{quote_rows(rows)}#m-{measure}")
        self.finish("")


def quote_rows(rows: list[str]) -> str:
    """Rows as the address names them."""
    return urlencode([("row", row) for row in dict.fromkeys(rows)])


class History(QuotaPage):
    """Who changed which limit, from what to what: the newest lines of the audit log."""

    async def get(self) -> None:
        lines = await self.portal.db.run_read(_history)
        await self.render_fragment(
            "admin_quotas_history.html", lines=lines, history_words=self._line, **self.words()
        )

    def _line(self, line: Any) -> str:
        """A line of the log as a sentence: ``Student, memory per node: 8 GB → 16 GB``."""
        before, after = line.before or {}, line.after or {}
        name = str(after.get("measure") or before.get("measure") or "")
        with contextlib.suppress(UserError, KeyError):
            name = self.words()["measure_name"](Measure.parse(name))
        was, now = (self._told(part.get("amount", None), name) for part in (before, after))
        told = {
            "quota.set": mark("{who}, {measure}: {before} → {after}"),
            "quota.refused": mark("{who}: tried to raise what holds for themselves, and was refused"),
            "exception.give": mark("Exception of {who}, {measure}: {after}"),
            "exception.change": mark("Exception of {who}, {measure}: {before} → {after}"),
            "exception.end": mark("Exception of {who} ended, {measure}: {before}"),
        }.get(line.action, "{who}")
        return self.translate(told).format(who=line.subject, measure=name, before=was, after=now)

    def _told(self, amount: Any, name: str) -> str:
        if amount is None or amount == "no limit":
            return self.translate(NO_LIMIT)
        if isinstance(amount, bool):
            return self.translate(YES if amount else NO)
        return str(amount)


def _history(conn: Connection) -> list[Any]:
    wanted = or_(
        audit_log.c.action.like("quota.%"),
        audit_log.c.action.like("exception.%"),
    )
    return list(
        conn.execute(select(audit_log).where(wanted).order_by(audit_log.c.id.desc()).limit(HISTORY_MOST))
    )


class ExceptionDialog(QuotaPage):
    """A new exception, or an old one to be changed."""

    async def get(self, exception_id: str = "") -> None:
        view = await quotas.exception(self.portal, exception_id) if exception_id else None
        zone = self.portal.settings.site.zone
        today = self.portal.clock().astimezone(zone).date()
        await self.render_fragment(
            "admin_exception.html",
            **self.words(),
            one=view,
            user=view.granted.user if view else self.get_query_argument("user", "")[:255],
            measures=self._measures(),
            ends=ends_offered(today),
            today=today,
            last=last_day(view.granted.expires_at, zone) if view else None,
        )

    def _measures(self) -> list[Measure]:
        """What an exception can be of: plain first, then for each pool and model."""
        found = [Measure(name) for name in PERSONAL if not RESOURCES[name].budget]
        found += [Measure(name, "", "", period) for name in ("gpu_hours", "core_hours") for period in PERIODS]
        for model in self.portal.settings.gpu_models:
            found += [Measure(name, "", model) for name in ("total_gpu", "gpu")]
            found += [Measure("gpu_hours", "", model, period) for period in PERIODS]
        if len(self.portal.settings.pools) > 1:
            for pool in self.portal.settings.pools:
                found += [
                    Measure(name, pool) for name in ("clusters", "total_cpu", "total_memory", "total_gpu")
                ]
        return found

    async def post(self, exception_id: str = "") -> None:
        zone, now = self.portal.settings.site.zone, self.portal.clock()
        reason = self.get_body_argument("reason", "")
        expires_at = quotas.parse_end(self.get_body_argument("until", ""), zone, now)
        if exception_id:
            old = await quotas.exception(self.portal, exception_id)
            amount = parse_amount(old.granted.measure, self.get_body_argument("amount", ""))
            made = await quotas.change(
                self.portal, self.person, exception_id,
                amount=amount, reason=reason, expires_at=expires_at, address=self.address,
            )  # fmt: skip
        else:
            measure = self.measure(self.get_body_argument("measure", ""))
            made = await quotas.give(
                self.portal,
                self.person,
                user=self.get_body_argument("user", "").strip(),
                measure=measure,
                amount=parse_amount(measure, self.get_body_argument("amount", "")),
                reason=reason,
                expires_at=expires_at,
                also=[self.measure(text) for text in self.get_body_arguments("also")],
                address=self.address,
            )
        self.tell(made, mark("{name}: the exception counts from now on."))

    def tell(self, made: Any, sentence: str) -> None:
        """One line for the browser; the table again; the person's own pages."""
        self.portal.parts["watcher"].tell(made.user, "clusters")
        text = self.translate(sentence).format(name=made.user)
        self.answer_events(
            {"galilean:toast": {"text": text}, "galilean:close-dialog": {}, "galilean:exceptions": {}}
        )


def ends_offered(today: date) -> list[tuple[str, date]]:
    """Ends that a press sets: the coming Friday, in four weeks, in three months."""
    friday = today + timedelta(days=(4 - today.weekday()) % 7)
    return [
        (mark("Friday"), friday),
        (mark("4 weeks"), today + timedelta(weeks=4)),
        (mark("3 months"), today + timedelta(days=91)),
    ]


class BesideDialog(QuotaPage):
    """What the person's roles say, while an exception is written."""

    async def get(self) -> None:
        user = self.get_query_argument("user", "").strip()
        found, measure, wrong = None, None, ""
        amount: Any = ...
        try:
            measure = self.measure(self.get_query_argument("measure", ""))
            text = self.get_query_argument("amount", "").strip()
            if text:
                amount = parse_amount(measure, text)
        except UserError as error:
            wrong = error.text(self.translate)
        if user and measure:
            found = await quotas.beside(self.portal, user, measure, amount)
        book = await self.portal.db.run_read(quotas.read_book)
        await self.render_fragment(
            "admin_exception_beside.html",
            **self.words(),
            found=found,
            measure=measure,
            user=user,
            wrong=wrong,
            wanted=None if amount is ... else amount,
            amount_given=amount is not ...,
            titles_of=lambda roles: " · ".join(
                self.translate(str(book.titles.get(role, role))) for role in roles
            ),
            until=lambda granted: quotas.until_said(
                granted, self.portal.clock(), self.portal.settings.site.zone
            ),
        )


class FindPeople(QuotaPage):
    """Names that fit what was typed, as options of a field."""

    async def get(self) -> None:
        text = self.get_query_argument("user", "")[:100]
        everybody = await quotas.who_has(self.portal).everybody()
        found = everybody.find(text, FOUND_MOST) if text.strip() else []
        await self.render_fragment("people_options.html", names=found)


class EndDialog(ExceptionDialog):
    """The second step of ending an exception."""

    async def get(self, exception_id: str = "") -> None:
        view = await quotas.exception(self.portal, exception_id)
        await self.render_fragment("admin_exception_end.html", **self.words(), one=view)

    async def post(self, exception_id: str = "") -> None:
        made = await quotas.end(self.portal, self.person, exception_id, address=self.address)
        self.tell(made, mark("The exception of {name} is over. What runs goes on."))


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    one = r"/admin/quotas/exceptions/([0-9A-Z]{26})"
    return [
        (r"/admin/quotas", Quotas),
        (r"/admin/quotas/matrix", Matrix),
        (r"/admin/quotas/changes", Changes),
        (r"/admin/quotas/row", AddRow),
        (r"/admin/quotas/history", History),
        (r"/admin/quotas/people", FindPeople),
        (r"/admin/quotas/exception", ExceptionDialog),
        (r"/admin/quotas/beside", BesideDialog),
        (one, ExceptionDialog),
        (one + "/end", EndDialog),
    ]
