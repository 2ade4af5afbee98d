"""Administration → Audit: who changed what, from where, what it was before (SC-17)."""

from __future__ import annotations

import csv
import io
import json
from datetime import date
from typing import Any
from urllib.parse import urlencode

from galilean.web.handlers import PageHandler
from services.people.importing import safe
from services.portal.audit_log import NOUNS, PAGE_SIZE, Search, page

EXPORT_PART = 1000


def search_of(handler: Any) -> Search:
    """What the address asks for; days that are none count as not given."""

    def word(name: str) -> str:
        return handler.get_query_argument(name, "").strip()[:200]

    def day(name: str) -> date | None:
        try:
            return date.fromisoformat(word(name)) if word(name) else None
        except ValueError:
            return None

    return Search(
        text=word("q"),
        actor=word("who"),
        action=word("what"),
        subject=word("subject"),
        first=day("from"),
        last=day("to"),
    )


def query_of(search: Search, **changes: Any) -> str:
    values = {
        "q": search.text,
        "who": search.actor,
        "what": search.action,
        "subject": search.subject,
        "from": search.first.isoformat() if search.first else "",
        "to": search.last.isoformat() if search.last else "",
        **changes,
    }
    return urlencode({key: value for key, value in values.items() if value})


class Audit(PageHandler):
    """The page; for htmx the table alone."""

    right = "audit:read"

    async def get(self) -> None:
        search = search_of(self)
        text = self.get_query_argument("before", "0")
        before = int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0
        zone = self.portal.settings.site.zone
        rows = await self.portal.db.run_read(page, search, zone, before=before, limit=PAGE_SIZE + 1)
        values: dict[str, Any] = {
            "address": f"{self.portal.prefix}admin/audit",
            "search": search,
            "rows": rows[:PAGE_SIZE],
            "older": rows[PAGE_SIZE - 1].id if len(rows) > PAGE_SIZE else 0,
            "before": before,
            "nouns": NOUNS,
            "query": lambda **changes: query_of(search, **changes),
        }
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_audit_table.html", **values)
        else:
            await self.render_page("admin_audit.html", **values)


class AuditCSV(PageHandler):
    """All lines that fit, streamed part by part."""

    right = "audit:read"
    long = True

    async def get(self) -> None:
        search, zone = search_of(self), self.portal.settings.site.zone
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", 'attachment; filename="audit.csv"')
        self.write("\ufeff" + _line("at", "who", "address", "what", "subject", "before", "after", "reason"))
        before = 0
        while True:
            rows = await self.portal.db.run_read(page, search, zone, before=before, limit=EXPORT_PART)
            for row in rows:
                self.write(
                    _line(
                        row.at.isoformat(),
                        row.actor,
                        row.address,
                        row.action,
                        row.subject,
                        _json(row.before),
                        _json(row.after),
                        row.reason,
                    )
                )
            await self.flush()
            if len(rows) < EXPORT_PART:
                return
            before = rows[-1].id


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _line(*cells: str) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([safe(cell) for cell in cells])
    return out.getvalue()


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/admin/audit", Audit), (r"/admin/audit\.csv", AuditCSV)]
