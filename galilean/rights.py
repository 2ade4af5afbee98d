"""Which roles and rights somebody's hub groups give, as the administrators decided (AP-34 … AP-36).

A role is the hub group ``galilean:<role>``; a group of people is ``galilean-group:<slug>`` and may give
roles to its members. *Effective* roles are one's own and those of one's groups. Who is in which group only
the hub knows; what a role or a group means stands in our database and is read again when the version moves
(:class:`galilean.centre.Kept`). So whoever has both, groups and this snapshot, knows what somebody may.

A person who is blocked is in the hub group :data:`BLOCKED`, whatever else they are in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from galilean import centre
from galilean.centre import RIGHTS, RoleRow, all_roles
from galilean.db import Database
from galilean.settings import Settings
from galilean.tables import groups

#: Hub groups: roles, groups of people, and the one of those who are blocked.
ROLE_PREFIX = "galilean:"
GROUP_PREFIX = "galilean-group:"
BLOCKED = "galilean-blocked"


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """A group of people: a course, a research group.

    Attributes
    ----------
    roles
        What each member has besides their own.
    """

    slug: str
    title: str
    description: str = ""
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rights:
    """Roles and groups at one version of the decisions."""

    roles: Mapping[str, RoleRow] = field(default_factory=dict)
    groups: Mapping[str, GroupRow] = field(default_factory=dict)

    def roles_of(self, hub_groups: Iterable[str]) -> tuple[str, ...]:
        """Effective roles, in the order of the roles."""
        found = set(own_roles(hub_groups))
        for slug in slugs_of(hub_groups):
            group = self.groups.get(slug)
            found.update(group.roles if group else ())
        return tuple(role for role in self.roles if role in found)

    def rights_of(self, roles: Iterable[str]) -> frozenset[str]:
        """All that these roles allow beyond one's own things."""
        return frozenset[str]().union(*(self.roles[role].rights for role in roles if role in self.roles))

    def given_by(self, hub_groups: Iterable[str]) -> frozenset[str]:
        """The rights of somebody in these hub groups."""
        return self.rights_of(self.roles_of(hub_groups))

    def titles(self) -> dict[str, str]:
        """What pages call the roles, untranslated."""
        return {name: role.title or name.capitalize() for name, role in self.roles.items()}


def own_roles(hub_groups: Iterable[str]) -> list[str]:
    """Names of roles among hub groups, those of people's groups left out."""
    return [name.removeprefix(ROLE_PREFIX) for name in hub_groups if name.startswith(ROLE_PREFIX)]


def slugs_of(hub_groups: Iterable[str]) -> list[str]:
    """Slugs of people's groups among hub groups."""
    return [name.removeprefix(GROUP_PREFIX) for name in hub_groups if name.startswith(GROUP_PREFIX)]


def all_groups(conn: Connection) -> dict[str, GroupRow]:
    """Groups of people by slug."""
    rows = conn.execute(select(groups).order_by(groups.c.slug)).all()
    return {
        row.slug: GroupRow(
            slug=row.slug, title=row.title, description=row.description, roles=tuple(row.roles)
        )
        for row in rows
    }


def read(conn: Connection) -> Rights:
    """What holds now."""
    return Rights(all_roles(conn), all_groups(conn))


def initial(settings: Settings) -> Rights:
    """What will hold where nothing was decided yet: the roles of the settings."""
    return Rights(
        {
            name: RoleRow(
                name=name,
                title=role.title,
                position=position,
                builtin=True,
                rights=frozenset(RIGHTS) if name == "admin" else frozenset(),
            )
            for position, (name, role) in enumerate(settings.roles.items())
        }
    )


class Known(centre.Known[Rights]):
    """Roles and rights, as a process knows them."""

    def __init__(self, database: Database, **more: Any) -> None:
        super().__init__(database, read, **more)
