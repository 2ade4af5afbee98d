"""Making, changing and deleting roles and groups; each in one transaction with its audit line.

Whether the actor may is decided before, by :mod:`services.people.rules`. What is in use is not deleted: the
uses come back as words, so that the page can say what to change first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from galilean import audit, centre
from galilean.centre import RoleRow
from galilean.errors import UserError, mark
from galilean.names import slugify
from galilean.rights import GroupRow, all_groups
from galilean.tables import groups, roles

TITLE_MOST, ROLES_MOST, GROUPS_MOST = 80, 100, 2000


def create_role(
    conn: Connection,
    *,
    name: str,
    title: str,
    rights: Sequence[str],
    now: datetime,
    by: str,
    address: str = "",
) -> RoleRow:
    """A role of one's own.

    Raises
    ------
    UserError
        409 when there is one of that name, or too many.
    """
    centre.decide_alone(conn)
    known = centre.all_roles(conn)
    if name in known:
        raise UserError(409, mark("There is a role “{role}” already."), role=name)
    if len(known) >= ROLES_MOST:
        raise UserError(409, mark("There are {most} roles: that is the most."), most=ROLES_MOST)
    position = 1 + (conn.execute(select(func.max(roles.c.position))).scalar() or 0)
    row = RoleRow(
        name=name, title=_title(title) or name.capitalize(), position=position, rights=frozenset(rights)
    )
    conn.execute(
        insert(roles).values(
            name=name,
            title=row.title,
            position=position,
            builtin=False,
            rights=sorted(rights),
            created_at=now,
        )
    )
    centre.bump(conn, now, by)
    audit.write(
        conn, at=now, actor=by, action="role.create", subject=name, address=address, after=role_values(row)
    )
    return row


def change_role(
    conn: Connection,
    name: str,
    *,
    title: str | None = None,
    rights: Sequence[str] | None = None,
    now: datetime,
    by: str,
    address: str = "",
) -> RoleRow:
    """Another title or other rights; the administrator's role keeps every right.

    Raises
    ------
    UserError
        404; 409 for the rights of the administrator's role.
    """
    centre.decide_alone(conn)
    before = centre.all_roles(conn).get(name)
    if before is None:
        raise UserError(404, mark("There is no role “{role}”."), role=name[:64])
    if rights is not None and name == "admin" and frozenset(rights) != before.rights:
        raise UserError(409, mark("The administrator's role has every right, and keeps them."))
    values = {
        "title": before.title if title is None else (_title(title) or before.title),
        "rights": sorted(before.rights if rights is None else rights),
    }
    after = RoleRow(
        name=name,
        title=values["title"],
        position=before.position,
        builtin=before.builtin,
        rights=frozenset(values["rights"]),
    )
    if after == before:
        return before
    conn.execute(update(roles).where(roles.c.name == name).values(**values))
    centre.bump(conn, now, by)
    audit.write(
        conn,
        at=now,
        actor=by,
        action="role.change",
        subject=name,
        address=address,
        before=role_values(before),
        after=role_values(after),
    )
    return after


def delete_role(
    conn: Connection, name: str, *, uses: Sequence[str], now: datetime, by: str, address: str = ""
) -> None:
    """Take a role of one's own away.

    Parameters
    ----------
    conn, name
        A transaction, and which role.
    now, by, address
        When, who asked, and from where: for the audit log.
    uses
        What still uses it, in words; groups are looked up here.

    Raises
    ------
    UserError
        404; 409 for a built-in role or one that is in use, with the uses.
    """
    centre.decide_alone(conn)
    before = centre.all_roles(conn).get(name)
    if before is None:
        raise UserError(404, mark("There is no role “{role}”."), role=name[:64])
    if before.builtin:
        raise UserError(409, mark("“{role}” is built in and cannot be deleted."), role=before.title or name)
    every = [*uses, *(f"group {slug}" for slug, group in all_groups(conn).items() if name in group.roles)]
    if every:
        raise UserError(
            409,
            mark("The role “{role}” is in use: {uses}. Change these first."),
            role=before.title or name,
            uses=", ".join(every),
            reason="in-use",
        )
    conn.execute(delete(roles).where(roles.c.name == name))
    centre.bump(conn, now, by)
    audit.write(
        conn,
        at=now,
        actor=by,
        action="role.delete",
        subject=name,
        address=address,
        before=role_values(before),
    )


def create_group(
    conn: Connection,
    *,
    title: str,
    slug: str = "",
    description: str = "",
    given: Sequence[str] = (),
    now: datetime,
    by: str,
    address: str = "",
) -> GroupRow:
    """A group of people without members.

    Raises
    ------
    UserError
        400 without a title; 409 when there is one of that address, or too many.
    """
    title = _title(title)
    if not title:
        raise UserError(400, mark("A group needs a title."))
    centre.decide_alone(conn)
    known = all_groups(conn)
    slug = slugify(slug or title)
    if slug in known:
        raise UserError(409, mark("There is a group “{group}” already."), group=slug)
    if len(known) >= GROUPS_MOST:
        raise UserError(409, mark("There are {most} groups: that is the most."), most=GROUPS_MOST)
    row = GroupRow(slug=slug, title=title, description=description[:2000], roles=tuple(sorted(set(given))))
    conn.execute(
        insert(groups).values(
            slug=slug,
            title=title,
            description=row.description,
            roles=list(row.roles),
            created_at=now,
            created_by=by,
        )
    )
    centre.bump(conn, now, by)
    audit.write(
        conn, at=now, actor=by, action="group.create", subject=slug, address=address, after=group_values(row)
    )
    return row


def change_group(
    conn: Connection,
    slug: str,
    *,
    title: str | None = None,
    description: str | None = None,
    given: Sequence[str] | None = None,
    now: datetime,
    by: str,
    address: str = "",
) -> GroupRow:
    """Another title, description, or other roles for its members.

    Raises
    ------
    UserError
        404.
    """
    centre.decide_alone(conn)
    before = group_of(conn, slug)
    after = GroupRow(
        slug=slug,
        title=before.title if title is None else (_title(title) or before.title),
        description=before.description if description is None else description[:2000],
        roles=before.roles if given is None else tuple(sorted(set(given))),
    )
    if after == before:
        return before
    conn.execute(
        update(groups)
        .where(groups.c.slug == slug)
        .values(title=after.title, description=after.description, roles=list(after.roles))
    )
    centre.bump(conn, now, by)
    audit.write(
        conn,
        at=now,
        actor=by,
        action="group.change",
        subject=slug,
        address=address,
        before=group_values(before),
        after=group_values(after),
    )
    return after


def delete_group(
    conn: Connection, slug: str, *, members: Sequence[str], now: datetime, by: str, address: str = ""
) -> None:
    """Take a group away; its members lose the roles that it gave.

    Raises
    ------
    UserError
        404.
    """
    centre.decide_alone(conn)
    before = group_of(conn, slug)
    conn.execute(delete(groups).where(groups.c.slug == slug))
    centre.bump(conn, now, by)
    audit.write(
        conn,
        at=now,
        actor=by,
        action="group.delete",
        subject=slug,
        address=address,
        before={**group_values(before), "members": sorted(members)},
    )


def group_of(conn: Connection, slug: str) -> GroupRow:
    """A group.

    Raises
    ------
    UserError
        404.
    """
    found = all_groups(conn).get(slug)
    if found is None:
        raise UserError(404, mark("There is no group “{group}”."), group=slug[:64])
    return found


def role_values(row: RoleRow) -> dict[str, object]:
    """A role as the audit log keeps it."""
    return {"title": row.title, "rights": sorted(row.rights)}


def group_values(row: GroupRow) -> dict[str, object]:
    """A group as the audit log keeps it."""
    return {"title": row.title, "description": row.description, "roles": list(row.roles)}


def _title(text: str) -> str:
    return " ".join(text.split())[:TITLE_MOST]
