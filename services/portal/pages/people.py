"""Administration → People: who waits for a role, and giving and taking roles (AP-1, AP-2).

Giving and taking is done by the hub with the administrator's own token, so that the hub decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection

from galilean import audit
from galilean.errors import UserError, mark
from galilean.web.handlers import PageHandler
from services.people.waiting import Account, grant, list_accounts, take
from spawner import records

PAGE_SIZE = 50


def find(accounts: Iterable[Account], text: str, role: str) -> list[Account]:
    """Accounts whose name holds ``text`` and that have ``role`` (``none`` = wait for one; empty = all)."""
    wanted = text.strip().casefold()
    return [
        account
        for account in accounts
        if wanted in account.name.casefold()
        and (not role or (account.waits if role == "none" else role in account.roles))
    ]


def moment(text: str) -> datetime | None:
    """A time as the hub writes it; ``None`` when it says nothing."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
    except ValueError:
        return None


class People(PageHandler):
    """The page; for htmx the lists alone."""

    right = "people:manage"

    async def get(self) -> None:
        await self.show()

    async def show(self) -> None:
        """Answer with the page, or with its lists."""
        settings, rights = self.portal.settings, await self.portal.rights.get()
        accounts = await list_accounts(self.hub_as_visitor(), rights)
        text, role = self.get_query_argument("q", "")[:100], self.get_query_argument("role", "")
        role = role if role == "none" or role in rights.roles else ""
        offset_text = self.get_query_argument("from", "0")
        offset = int(offset_text) if offset_text.isascii() and offset_text.isdigit() else 0
        waiting = [account for account in accounts if account.waits]
        shown = find(accounts, text, role) if (text or role) else [a for a in accounts if not a.waits]
        runs = await self.portal.db.run_read(records.all_open)
        holds: dict[str, int] = {}
        for run in runs:
            holds[run.user] = holds.get(run.user, 0) + 1
        values: dict[str, Any] = {
            "address": f"{self.portal.prefix}admin/people",
            "text": text,
            "role": role,
            "waiting": [] if text or role else waiting[:PAGE_SIZE],
            "waiting_count": len(waiting),
            "rows": shown[offset : offset + PAGE_SIZE],
            "shown_count": len(shown),
            "all_count": len(accounts),
            "offset": offset,
            "page_size": PAGE_SIZE,
            "roles": {name: self.translate(title) for name, title in rights.titles().items()},
            "counts": {name: sum(name in a.roles for a in accounts) for name in rights.roles},
            "holds": holds,
            "moment": moment,
            "query": self._query,
            "unisolated": settings.backend == "process",
        }
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment("admin_people_list.html", **values)
        else:
            await self.render_page("admin_people.html", **values)

    @staticmethod
    def _query(**values: Any) -> str:
        return urlencode({key: value for key, value in values.items() if value})


class Roles(PageHandler):
    """Give or take a role of a person."""

    right = "people:manage"

    async def post(self, name: str) -> None:
        role, act = self.get_body_argument("role"), self.get_body_argument("act", "give")
        roles = await self.portal.rights.get()
        hub = self.hub_as_visitor()
        if act == "give":
            await grant(hub, name, role, roles)
            sentence = mark("{name} is {role} now.")
        elif act == "take":
            if name == self.person.name and role == "admin":
                raise UserError(409, mark("You cannot take the administrator's role from yourself."))
            await take(hub, name, role, roles)
            sentence = mark("{name} is no longer {role}.")
        else:
            raise UserError(400, mark("A role is given or taken."))
        await self.portal.db.run(_note, self.portal.clock(), self.person.name, self.address, act, name, role)
        self.portal.people.forget(name)
        self.portal.parts["frame"].forget()
        self.portal.parts["watcher"].tell(name, "role")
        title = self.translate(roles.titles()[role])
        text = self.translate(sentence).format(name=name, role=title)
        self.answer_events({"galilean:toast": {"text": text}, "galilean:people": {}})


def _note(conn: Connection, now: datetime, actor: str, address: str, act: str, name: str, role: str) -> None:
    audit.write(
        conn,
        at=now,
        actor=actor,
        address=address,
        action=f"role.{act}",
        subject=name,
        after={"role": role} if act == "give" else None,
        before={"role": role} if act == "take" else None,
    )


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/admin/people", People), (r"/admin/people/([^/]+)/roles", Roles)]
