"""Administration → Roles and rights, Groups: what roles allow, which roles groups give, who is in them.

Nobody sees more than they may change: boxes of rights that the visitor does not have are disabled with the
reason beside them.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from galilean.errors import UserError, mark
from galilean.rights import GROUP_PREFIX, RIGHTS
from galilean.web.handlers import PageHandler
from services.people.roles import group_of
from services.people.rules import no_such_role
from services.portal import people
from services.portal.rights_said import RIGHT_WORDS

FOUND_MOST = 20


class AdminPage(PageHandler):
    """What these handlers share."""

    async def role_titles(self) -> dict[str, str]:
        titles = (await self.portal.rights.get()).titles()
        return {name: self.translate(title) for name, title in titles.items()}

    def done(self, sentence: str, event: str, **values: Any) -> None:
        """One line, the dialog away, the list again."""
        text = self.translate(sentence).format(**values)
        self.answer_events({"galilean:toast": {"text": text}, "galilean:close-dialog": {}, event: {}})

    async def answer(self, page: str, part: str, **values: Any) -> None:
        if self.is_fragment and not self.request.headers.get("HX-History-Restore-Request"):
            await self.render_fragment(part, **values)
        else:
            await self.render_page(page, **values)


class Roles(AdminPage):
    """All roles."""

    right = "roles:manage"

    async def get(self) -> None:
        known = await self.portal.rights.get()
        models = await self.portal.hub.users()
        counts = {
            name: sum(name in known.roles_of(model.get("groups") or ()) for model in models)
            for name in known.roles
        }
        await self.answer(
            "admin_roles.html",
            "admin_roles_table.html",
            address=f"{self.portal.prefix}admin/roles",
            roles=known.roles.values(),
            counts=counts,
            words=RIGHT_WORDS,
            titles=await self.role_titles(),
        )

    async def post(self) -> None:
        title = self.get_body_argument("title", "")
        name = self.get_body_argument("name", "").strip().lower()
        row = await people.create_role(self, name=name, title=title, rights=self.get_body_arguments("right"))
        self.done(mark("The role {title} is made."), "galilean:roles", title=row.title)


class Role(AdminPage):
    """The dialog of one role, or of a new one; changing and deleting it."""

    right = "roles:manage"

    async def get(self, name: str) -> None:
        known = await self.portal.rights.get()
        role = known.roles.get(name)
        if role is None and name != "new":
            raise no_such_role(name, known)
        given = role.rights if role else frozenset()
        await self.render_fragment(
            "admin_role_dialog.html",
            address=f"{self.portal.prefix}admin/roles",
            role=role,
            rights=RIGHTS,
            given=given,
            words=RIGHT_WORDS,
            mine=self.person.rights,
            fixed=role is not None and (role.name == "admin" or not given <= self.person.rights),
            uses=await people.uses_of(self, name) if role is not None and not role.builtin else [],
        )

    async def post(self, name: str) -> None:
        rights = self.get_body_arguments("right")
        row = await people.change_role(
            self,
            name,
            title=self.get_body_argument("title", None),
            rights=rights if self.get_body_argument("rights", "") else None,
        )
        self.done(mark("The role {title} is changed; it counts at once."), "galilean:roles", title=row.title)

    async def delete(self, name: str) -> None:
        await people.delete_role(self, name)
        self.done(mark("The role is deleted."), "galilean:roles")


class Groups(AdminPage):
    """All groups of people."""

    right = "groups:manage"

    async def get(self) -> None:
        known = await self.portal.rights.get()
        counts: dict[str, int] = {}
        for model in await self.portal.hub.users():
            for name in model.get("groups") or ():
                counts[name] = counts.get(name, 0) + 1
        text = self.get_query_argument("q", "").strip()[:100]
        found = [
            group
            for group in sorted(known.groups.values(), key=lambda group: group.title.casefold())
            if all(word in f"{group.title} {group.slug}".casefold() for word in text.casefold().split())
        ]
        await self.answer(
            "admin_groups.html",
            "admin_groups_table.html",
            address=f"{self.portal.prefix}admin/groups",
            groups=found,
            all_count=len(known.groups),
            text=text,
            counts={slug: counts.get(GROUP_PREFIX + slug, 0) for slug in known.groups},
            titles=await self.role_titles(),
        )

    async def post(self) -> None:
        group = await people.create_group(
            self,
            title=self.get_body_argument("title", ""),
            description=self.get_body_argument("description", ""),
            given=self.get_body_arguments("role"),
        )
        self.done(mark("The group {title} is made."), "galilean:groups", title=group.title)


class Group(AdminPage):
    """A group's own page: its members."""

    right = "groups:manage"

    async def get(self, slug: str) -> None:
        group = await self.portal.db.run_read(group_of, slug)
        members = await people.members_of(self.portal, slug)
        await self.answer(
            "admin_group.html",
            "admin_group_members.html",
            address=f"{self.portal.prefix}admin/groups",
            here=f"{self.portal.prefix}admin/groups/{quote(slug)}",
            group=group,
            members=members,
            titles=await self.role_titles(),
            sees_people=self.person.may("people:manage"),
        )

    async def post(self, slug: str) -> None:
        known = await self.portal.rights.get()
        before = await self.portal.db.run_read(group_of, slug)
        # Boxes that the visitor may not change are not sent by the browser.
        kept = [role for role in before.roles if not known.rights_of([role]) <= self.person.rights]
        group = await people.change_group(
            self,
            slug,
            title=self.get_body_argument("title", None),
            description=self.get_body_argument("description", None),
            given=[*self.get_body_arguments("role"), *kept],
        )
        self.done(
            mark("The group {title} is changed; it counts at once."), "galilean:groups", title=group.title
        )

    async def delete(self, slug: str) -> None:
        await people.delete_group(self, slug)
        self.set_header("HX-Redirect", f"{self.portal.prefix}admin/groups")
        self.finish("")


class GroupDialog(AdminPage):
    """Title, description and roles of a group, or of a new one."""

    right = "groups:manage"

    async def get(self, slug: str) -> None:
        known = await self.portal.rights.get()
        group = None if slug == "new" else await self.portal.db.run_read(group_of, slug)
        why = {
            name: self.translate(mark("allows more than you may"))
            for name, role in known.roles.items()
            if not role.rights <= self.person.rights
        }
        await self.render_fragment(
            "admin_group_dialog.html",
            address=f"{self.portal.prefix}admin/groups",
            group=group,
            titles={name: title for name, title in (await self.role_titles()).items() if name != "admin"},
            why=why,
            members=len(await people.members_of(self.portal, slug)) if group else 0,
        )


class GroupMembers(AdminPage):
    """Put people into a group, or take one out."""

    right = "groups:manage"

    async def get(self, slug: str) -> None:
        """Names that could be meant, for the field."""
        text = self.get_query_argument("person", "").strip()[:100]
        members = set(await people.members_of(self.portal, slug))
        names = [model["name"] for model in await self.portal.hub.users()]
        found = sorted(name for name in names if text.casefold() in name and name not in members)
        await self.render_fragment("people_names.html", names=found[:FOUND_MOST])

    async def post(self, slug: str) -> None:
        group = await self.portal.db.run_read(group_of, slug)
        names = self.get_body_argument("person", "").replace(",", " ").split()
        act = self.get_body_argument("act", "add")
        if not names or act not in ("add", "remove"):
            raise UserError(400, mark("Say who."))
        for name in names[:500]:
            moved = {act: [GROUP_PREFIX + slug]}
            await people.move(self, name.lower(), **moved)  # type: ignore[arg-type]
        sentence = (
            mark("{names} is in {group} now.") if act == "add" else mark("{names} is no longer in {group}.")
        )
        self.done(sentence, "galilean:groups", names=", ".join(names[:5]), group=group.title)


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/admin/roles", Roles),
        (r"/admin/roles/([^/]+)", Role),
        (r"/admin/groups", Groups),
        (r"/admin/groups/([^/]+)", Group),
        (r"/admin/groups/([^/]+)/edit", GroupDialog),
        (r"/admin/groups/([^/]+)/members", GroupMembers),
    ]
