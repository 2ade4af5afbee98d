"""Administration → People: everybody, who waits for a role, and all that is done with an account (AP-1, AP-32).

Accounts are changed by the hub with the administrator's own token, so that the hub decides. The address says
what is shown, so that a view can be sent as a link.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from galilean.errors import UserError, mark
from galilean.rights import GROUP_PREFIX, ROLE_PREFIX
from services.portal import people
from services.portal.api.usage import usage_for
from services.portal.pages.roles import AdminPage
from services.portal.pages.table_view import TableView
from services.portal.people import Row, matches

PAGE_SIZE = 50
STATES = ("waits", "holds", "in", "blocked")


@dataclass(frozen=True, kw_only=True)
class View(TableView):
    """By name, until asked otherwise."""

    role: str = ""
    group: str = ""
    state: str = ""
    sort: str = "name"

    sorts = ("name", "seen", "clusters", "used", "made")
    words_in = ("name",)

    @classmethod
    def parse_filters(cls, query: dict[str, str]) -> dict[str, str]:
        state = query.get("state", "")
        role = query.get("role", "")
        if role == "none":
            role, state = "", "waits"
        return {
            "role": role[:64],
            "group": query.get("group", "")[:64],
            "state": state if state in STATES else "",
        }

    def filters(self) -> dict[str, str]:
        return {"role": self.role, "group": self.group, "state": self.state}


def fits(row: Row, view: View) -> bool:
    """Whether a person is in a view."""
    return (
        matches(row, view.text)
        and (not view.role or view.role in row.account.effective)
        and (not view.group or view.group in row.account.groups)
        and (not view.state or row.state == view.state)
    )


def arrange(rows: Iterable[Row], view: View, used: dict[str, float]) -> list[Row]:
    """The people of a view, in its order."""
    keys: dict[str, Any] = {
        "name": lambda row: "",
        "seen": lambda row: row.account.last_activity,
        "made": lambda row: row.account.created,
        "clusters": lambda row: len(row.clusters),
        "used": lambda row: used.get(row.name, 0.0),
    }
    found = sorted((row for row in rows if fits(row, view)), key=lambda row: row.name)
    if view.sort == "name":
        return found[::-1] if view.descending else found
    return sorted(found, key=keys[view.sort], reverse=view.descending)


def moment(text: str) -> datetime | None:
    """A time as the hub writes it; ``None`` when it says nothing."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
    except ValueError:
        return None


class PeoplePage(AdminPage):
    """What the handlers share."""

    right = "people:manage"

    @property
    def root(self) -> str:
        return f"{self.portal.prefix}admin/people"

    async def giveable(self) -> dict[str, str]:
        """Roles that the visitor may give, with titles."""
        known = await self.portal.rights.get()
        return {
            name: title
            for name, title in (await self.role_titles()).items()
            if self.person.admin or (name != "admin" and known.roles[name].rights <= self.person.rights)
        }

    async def used_this_month(self) -> dict[str, float]:
        """Core hours by person; empty for who may not see them."""
        if not self.person.may("usage:read-all"):
            return {}
        now = self.portal.clock().astimezone(self.portal.settings.site.zone)
        first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        rows = await usage_for(self.portal, self.person, by="user", start=first)
        return {row.key: row.cpu_core_minutes / 60 for row in rows}


class People(PeoplePage):
    """The page; for htmx the lists alone."""

    async def get(self) -> None:
        view = View.parse({key: values[0].decode() for key, values in self.request.query_arguments.items()})
        known = await self.portal.rights.get()
        rows, used = await people.everybody(self), await self.used_this_month()
        waiting = [row for row in rows if row.state == "waits"]
        plain = not (view.text or view.role or view.group or view.state)
        shown = arrange((row for row in rows if row.state != "waits") if plain else rows, view, used)
        await self.answer(
            "admin_people.html",
            "admin_people_list.html",
            address=self.root,
            view=view,
            waiting=waiting[:PAGE_SIZE] if plain else [],
            waiting_count=len(waiting),
            rows=shown[view.offset : view.offset + PAGE_SIZE],
            shown_count=len(shown),
            all_count=len(rows),
            page_size=PAGE_SIZE,
            roles=await self.role_titles(),
            giveable=await self.giveable(),
            groups={slug: group.title for slug, group in known.groups.items()},
            counts={name: sum(name in row.account.effective for row in rows) for name in known.roles},
            blocked_count=sum(row.state == "blocked" for row in rows),
            holds_count=sum(row.state == "holds" for row in rows),
            used=used if self.person.may("usage:read-all") else None,
            moment=moment,
            unisolated=self.portal.settings.backend == "process",
        )


class Roles(PeoplePage):
    """Give or take a role of a person."""

    async def post(self, name: str) -> None:
        role, act = self.get_body_argument("role"), self.get_body_argument("act", "give")
        titles = await self.role_titles()
        if act == "give":
            await people.move(self, name, add=[ROLE_PREFIX + role])
            sentence = mark("{name} is {role} now.")
        elif act == "take":
            await people.move(self, name, remove=[ROLE_PREFIX + role])
            sentence = mark("{name} is no longer {role}.")
        else:
            raise UserError(400, mark("A role is given or taken."))
        text = self.translate(sentence).format(name=name, role=titles.get(role, role))
        self.answer_events({"galilean:toast": {"text": text}, "galilean:people": {}})


class Groups(PeoplePage):
    """Put a person into a group of people, or take them out."""

    async def post(self, name: str) -> None:
        group = GROUP_PREFIX + self.get_body_argument("group")
        if self.get_body_argument("act", "add") == "add":
            await people.move(self, name, add=[group])
        else:
            await people.move(self, name, remove=[group])
        self.done(mark("The groups of {name} are changed."), "galilean:people", name=name)


class NewPerson(PeoplePage):
    """The dialog for a new account; afterwards its password, once."""

    async def get(self) -> None:
        known = await self.portal.rights.get()
        await self.render_fragment(
            "admin_person_new.html",
            address=self.root,
            giveable=await self.giveable(),
            groups={slug: group.title for slug, group in known.groups.items()},
        )

    async def post(self) -> None:
        password = people.new_password()
        made = await people.create(
            self,
            name=self.get_body_argument("name").strip().lower(),
            given=[role for role in self.get_body_arguments("role") if role],
            groups=[slug for slug in self.get_body_arguments("group") if slug],
            full_name=self.get_body_argument("full_name", "").strip(),
            mail=self.get_body_argument("mail", "").strip(),
            password=password,
        )
        self.set_header("HX-Trigger", "galilean:people")
        shown = password if made["password"] else ""
        await self.render_fragment("admin_password.html", name=made["name"], password=shown, new=True)


class Password(PeoplePage):
    """A new password for somebody, shown once."""

    async def post(self, name: str) -> None:
        password = people.new_password()
        await people.set_password(self, name, password)
        await self.render_fragment("admin_password.html", name=name, password=password, new=False)


class Block(PeoplePage):
    """Block somebody, with the choice of what becomes of their clusters; or let them in again."""

    async def get(self, name: str) -> None:
        row = await people.one(self, name)
        await self.render_fragment("admin_person_block.html", here=f"{self.root}/{quote(name)}", row=row)

    async def post(self, name: str) -> None:
        release = self.get_body_argument("clusters", "leave") == "release"
        await people.block(self, name, reason=self.get_body_argument("reason", ""), release=release)
        self.done(mark("{name} is blocked."), "galilean:people", name=name)

    async def delete(self, name: str) -> None:
        await people.unblock(self, name)
        self.done(mark("{name} may sign in again."), "galilean:people", name=name)


class Delete(PeoplePage):
    """Delete an account, after saying in numbers what goes with it."""

    async def get(self, name: str) -> None:
        row = await people.one(self, name)
        await self.render_fragment(
            "admin_person_delete.html",
            here=f"{self.root}/{quote(name)}",
            row=row,
            loss=await people.loss_of(self.portal, row.name),
        )

    async def post(self, name: str) -> None:
        if self.get_body_argument("typed", "").strip() != name:
            raise UserError(400, mark("Type the name “{name}” to delete the account."), name=name)
        await people.delete(self, name)
        self.set_header("HX-Redirect", self.root)
        self.finish("")


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    one = r"/admin/people/([^/]+)"
    return [
        (r"/admin/people", People),
        (r"/admin/people-new", NewPerson),
        (one + "/roles", Roles),
        (one + "/groups", Groups),
        (one + "/password", Password),
        (one + "/block", Block),
        (one + "/delete", Delete),
    ]
