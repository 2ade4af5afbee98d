"""People, groups, roles, the audit log and imports by the API: the same functions as the pages'."""

from __future__ import annotations

from datetime import date
from typing import Any

from galilean.centre import RoleRow
from galilean.errors import UserError, mark
from galilean.rights import GROUP_PREFIX, ROLE_PREFIX, GroupRow
from galilean.web.handlers import APIHandler
from galilean.web.paging import Cursor
from services.people.roles import group_of
from services.portal import imports, people
from services.portal.api import people_models as models
from services.portal.api.base import Handler
from services.portal.api.models import ListOf
from services.portal.api.operation import PAGED, Operation
from services.portal.audit_log import Search, page
from services.portal.pages.people import moment
from services.portal.people import Row, matches


def person_model(row: Row) -> models.Person:
    """A person as the API shows it."""
    account, known = row.account, row.known
    return models.Person(
        name=row.name,
        full_name=row.full_name,
        mail=known.mail if known else "",
        state=row.state,  # type: ignore[arg-type]
        roles=list(account.roles),
        effective_roles=list(account.effective),
        groups=list(account.groups),
        clusters=len(row.clusters),
        created_at=moment(account.created),
        last_seen_at=moment(account.last_activity),
        blocked_reason=known.blocked_reason if known and account.blocked else "",
    )


def role_model(row: RoleRow) -> models.Role:
    return models.Role(name=row.name, title=row.title, builtin=row.builtin, rights=sorted(row.rights))


def group_model(row: GroupRow) -> models.Group:
    return models.Group(slug=row.slug, title=row.title, description=row.description, roles=list(row.roles))


class PeopleHandler(Handler):
    right = "people:manage"


class People(PeopleHandler):
    async def get(self) -> None:
        limit, cursor, after = self.limit(), self.query("cursor"), ""
        if cursor:
            (after,) = Cursor.decode(cursor, 1)
        state = self.word("state", "", "blocked", "waits", "holds", "in")
        rows = sorted(
            (
                row
                for row in await people.everybody(self)
                if row.name > str(after)
                and matches(row, self.query("q"))
                and (not state or row.state == state)
                and (not self.query("role") or self.query("role") in row.account.effective)
                and (not self.query("group") or self.query("group") in row.account.groups)
            ),
            key=lambda row: row.name,
        )
        following = Cursor.encode(rows[limit - 1].name) if len(rows) > limit else None
        self.write_json(
            ListOf[models.Person](items=[person_model(row) for row in rows[:limit]], next=following)
        )

    async def post(self) -> None:
        body = self.body(models.NewPerson)
        made = await people.create(
            self,
            name=body.name.lower(),
            given=body.roles,
            groups=body.groups,
            full_name=body.full_name,
            mail=body.mail,
            password=body.password,
        )
        self.write_json(person_model(await people.one(self, made["name"])), 201)


class Person(PeopleHandler):
    async def get(self, name: str) -> None:
        self.write_json(person_model(await people.one(self, name)))

    async def patch(self, name: str) -> None:
        body, row = self.body(models.PersonChange), await people.one(self, name)
        add: list[str] = []
        remove: list[str] = []
        for prefix, wanted, present in (
            (ROLE_PREFIX, body.roles, row.account.roles),
            (GROUP_PREFIX, body.groups, row.account.groups),
        ):
            if wanted is not None:
                add += [prefix + item for item in wanted if item not in present]
                remove += [prefix + item for item in present if item not in wanted]
        if add or remove:
            await people.move(self, row.name, add=add, remove=remove)
        names = {key: value for key in ("full_name", "mail") if (value := getattr(body, key)) is not None}
        if names:
            await people.rename(self, row.name, **names)
        self.write_json(person_model(await people.one(self, row.name)))

    async def delete(self, name: str) -> None:
        await people.delete(self, name)
        self.set_status(204)


class Block(PeopleHandler):
    async def put(self, name: str) -> None:
        body = self.body(models.NewBlock)
        await people.block(self, name, reason=body.reason, release=body.release)
        self.write_json(person_model(await people.one(self, name)))

    async def delete(self, name: str) -> None:
        await people.unblock(self, name)
        self.set_status(204)


class Password(PeopleHandler):
    async def put(self, name: str) -> None:
        sent = self.body(models.NewPassword).password
        password = sent or people.new_password()
        await people.set_password(self, name, password)
        self.set_header("Cache-Control", "no-store")
        self.write_json(models.PasswordSet(name=name, password=None if sent else password))


class Roles(Handler):
    right = ("roles:manage", "people:manage", "groups:manage", "quotas:manage", "release:manage")

    async def get(self) -> None:
        known = await self.portal.rights.get()
        self.write_json(ListOf[models.Role](items=[role_model(row) for row in known.roles.values()]))

    async def post(self) -> None:
        body = self.body(models.NewRole)
        row = await people.create_role(self, name=body.name, title=body.title, rights=body.rights)
        self.write_json(role_model(row), 201)


class Role(Handler):
    right = "roles:manage"

    async def patch(self, name: str) -> None:
        body = self.body(models.RoleChange)
        self.write_json(
            role_model(await people.change_role(self, name, title=body.title, rights=body.rights))
        )

    async def delete(self, name: str) -> None:
        await people.delete_role(self, name)
        self.set_status(204)


class Groups(Handler):
    right = ("groups:manage", "people:manage")

    async def get(self) -> None:
        known = await self.portal.rights.get()
        self.write_json(ListOf[models.Group](items=[group_model(row) for row in known.groups.values()]))

    async def post(self) -> None:
        body = self.body(models.NewGroup)
        row = await people.create_group(
            self, title=body.title, slug=body.slug, description=body.description, given=body.roles
        )
        self.write_json(group_model(row), 201)


class Group(Handler):
    right = "groups:manage"

    async def get(self, slug: str) -> None:
        row = await self.portal.db.run_read(group_of, slug)
        members = await people.members_of(self.portal, slug)
        self.write_json(models.GroupDetail(**group_model(row).model_dump(), members=members))

    async def patch(self, slug: str) -> None:
        body = self.body(models.GroupChange)
        row = await people.change_group(
            self, slug, title=body.title, description=body.description, given=body.roles
        )
        self.write_json(group_model(row))

    async def delete(self, slug: str) -> None:
        await people.delete_group(self, slug)
        self.set_status(204)


class Member(Handler):
    right = "groups:manage"

    async def put(self, slug: str, name: str) -> None:
        await people.move(self, name, add=[GROUP_PREFIX + slug])
        self.set_status(204)

    async def delete(self, slug: str, name: str) -> None:
        await people.move(self, name, remove=[GROUP_PREFIX + slug])
        self.set_status(204)


class Audit(Handler):
    right = "audit:read"

    async def get(self) -> None:
        limit, cursor, before = self.limit(), self.query("cursor"), 0
        if cursor:
            (found,) = Cursor.decode(cursor, 1)
            before = found if isinstance(found, int) else 0
        search = Search(
            text=self.query("q"),
            actor=self.query("who"),
            action=self.query("what"),
            subject=self.query("subject"),
            first=_day(self.query("from"), "from"),
            last=_day(self.query("to"), "to"),
        )
        zone = self.portal.settings.site.zone
        rows = await self.portal.db.run_read(page, search, zone, before=before, limit=limit + 1)
        following = Cursor.encode(rows[limit - 1].id) if len(rows) > limit else None
        items = [
            models.AuditLine(
                id=row.id,
                at=row.at,
                actor=row.actor,
                address=row.address,
                action=row.action,
                subject=row.subject,
                before=row.before,
                after=row.after,
                reason=row.reason,
            )
            for row in rows[:limit]
        ]
        self.write_json(ListOf[models.AuditLine](items=items, next=following))


class Imports(PeopleHandler):
    async def post(self) -> None:
        body = self.body(models.NewImport)
        lines = await imports.preview(self, body.text.encode(), body.role)
        if body.dry_run:
            rows = [imports.plain(line) for line in lines]
            for row, line in zip(rows, lines, strict=True):
                if line.good:
                    row["outcome"] = "exists" if line.exists else "new"
            self.write_json(_import(None, rows, 0, finished=True, undone=False))
            return
        import_id = await imports.begin(self, lines, body.file)
        found = await imports.get(self, import_id)
        self.write_json(_import(import_id, found.rows, found.done, finished=False, undone=False), 202)


class OneImport(PeopleHandler):
    async def get(self, import_id: str) -> None:
        found = await imports.get(self, import_id)
        self.write_json(
            _import(
                found.id,
                found.rows,
                found.done,
                finished=found.finished_at is not None,
                undone=found.undone_at is not None,
            )
        )

    async def delete(self, import_id: str) -> None:
        await imports.undo(self, import_id)
        found = await imports.get(self, import_id)
        undone = found.undone_at is not None  # what could not be taken back stays, and it can be tried again
        self.write_json(_import(found.id, found.rows, found.done, finished=True, undone=undone))


class ImportPasswords(PeopleHandler):
    async def post(self, import_id: str) -> None:
        _, taken = await imports.take_passwords(self, import_id)
        self.set_header("Cache-Control", "no-store")
        self.write_json(models.ImportPasswords(passwords=taken))


def _import(import_id: str | None, rows: Any, done: int, *, finished: bool, undone: bool) -> models.Import:
    return models.Import(
        id=import_id,
        done=done,
        finished=finished,
        undone=undone,
        lines=[
            models.ImportLine(line=r["line"], name=r["name"], outcome=r["outcome"], problem=r["problem"])
            for r in rows
        ],
    )


def _day(text: str, key: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise UserError(400, mark("“{key}” takes a day such as 2026-11-22."), key=key) from None


PERSON, GROUP, ROLE = "/people/{name}", "/groups/{slug}", "/roles/{name}"
OPERATIONS = (
    Operation(
        method="get",
        path="/people",
        summary="List people (administrators)",
        query={
            "q": "Words that must all stand in account, name or mail.",
            "state": "blocked, waits, holds or in.",
            "role": "With this role, of their own or by a group.",
            "group": "In this group.",
            **PAGED,
        },
        answers={200: ListOf[models.Person]},
    ),
    Operation(
        method="post",
        path="/people",
        summary="Make an account",
        takes=models.NewPerson,
        answers={201: models.Person},
    ),
    Operation(method="get", path=PERSON, summary="Look at a person", answers={200: models.Person}),
    Operation(
        method="patch",
        path=PERSON,
        summary="Change a person's roles, groups, name or mail address",
        takes=models.PersonChange,
        answers={200: models.Person},
    ),
    Operation(
        method="delete",
        path=PERSON,
        summary="Delete an account: clusters are released, projects go to the bin, machine time stays",
        answers={204: None},
    ),
    Operation(
        method="put",
        path=PERSON + "/block",
        summary="Block a person: no sign-in, no token, no start",
        takes=models.NewBlock,
        answers={200: models.Person},
    ),
    Operation(method="delete", path=PERSON + "/block", summary="Let a person in again", answers={204: None}),
    Operation(
        method="put",
        path=PERSON + "/password",
        summary="Set a person's password, or have one made; every browser of theirs is signed out",
        takes=models.NewPassword,
        answers={200: models.PasswordSet},
    ),
    Operation(method="get", path="/roles", summary="List roles", answers={200: ListOf[models.Role]}),
    Operation(
        method="post", path="/roles", summary="Make a role", takes=models.NewRole, answers={201: models.Role}
    ),
    Operation(
        method="patch",
        path=ROLE,
        summary="Change a role's title or rights; counts at once",
        takes=models.RoleChange,
        answers={200: models.Role},
    ),
    Operation(method="delete", path=ROLE, summary="Delete a role that nothing uses", answers={204: None}),
    Operation(
        method="get", path="/groups", summary="List groups of people", answers={200: ListOf[models.Group]}
    ),
    Operation(
        method="post",
        path="/groups",
        summary="Make a group",
        takes=models.NewGroup,
        answers={201: models.Group},
    ),
    Operation(
        method="get", path=GROUP, summary="Look at a group and its members", answers={200: models.GroupDetail}
    ),
    Operation(
        method="patch",
        path=GROUP,
        summary="Change a group's title, description or the roles it gives",
        takes=models.GroupChange,
        answers={200: models.Group},
    ),
    Operation(method="delete", path=GROUP, summary="Delete a group; accounts stay", answers={204: None}),
    Operation(
        method="put", path=GROUP + "/members/{name}", summary="Put a person into a group", answers={204: None}
    ),
    Operation(
        method="delete",
        path=GROUP + "/members/{name}",
        summary="Take a person out of a group",
        answers={204: None},
    ),
    Operation(
        method="get",
        path="/audit",
        summary="Look into the audit log, the newest first",
        query={
            "q": "Words that must all stand in a line.",
            "who": "By this actor.",
            "what": "This action, or all that begin with it.",
            "subject": "About this.",
            "from": "First day.",
            "to": "Last day.",
            **PAGED,
        },
        answers={200: ListOf[models.AuditLine]},
    ),
    Operation(
        method="post",
        path="/imports",
        summary="Import people from a table, or say what that would do",
        takes=models.NewImport,
        answers={202: models.Import, 200: models.Import},
    ),
    Operation(
        method="get", path="/imports/{id}", summary="How far an import is", answers={200: models.Import}
    ),
    Operation(
        method="delete",
        path="/imports/{id}",
        summary="Undo the last import: what it made and nobody used",
        answers={200: models.Import},
    ),
    Operation(
        method="post",
        path="/imports/{id}/passwords",
        summary="The passwords that one's import made, once",
        answers={200: models.ImportPasswords},
    ),
)


def routes() -> list[tuple[str, type[APIHandler]]]:
    """Addresses, relative to the portal's prefix."""
    person, group, one = r"/api/v1/people/([^/]+)", r"/api/v1/groups/([^/]+)", r"/api/v1/imports/([^/]+)"
    return [
        (r"/api/v1/people", People),
        (person, Person),
        (person + "/block", Block),
        (person + "/password", Password),
        (r"/api/v1/roles", Roles),
        (r"/api/v1/roles/([^/]+)", Role),
        (r"/api/v1/groups", Groups),
        (group, Group),
        (group + "/members/([^/]+)", Member),
        (r"/api/v1/audit", Audit),
        (r"/api/v1/imports", Imports),
        (one, OneImport),
        (one + "/passwords", ImportPasswords),
    ]
