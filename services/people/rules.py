"""Who may give what to whom: nobody hands out, or gets by it, more than they have (AP-35, AP-36).

Pure: who asks, whom it concerns and what roles mean is handed in; a refusal is a :class:`UserError` with
reason ``escalation``, ``last-admin`` or ``yourself``. The hub asks these rules on every way in, so that no
page, script or token can do what another one could not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from galilean.errors import UserError, mark
from galilean.rights import BLOCKED, GROUP_PREFIX, RIGHTS, ROLE_PREFIX, Rights

ADMIN_GROUP = ROLE_PREFIX + "admin"
ROLE_NAME = re.compile(r"[a-z](?:-?[a-z0-9])*", re.ASCII)
ROLE_NAME_MOST = 40
#: Begin of the names of hub roles that are not of ours.
RESERVED_ROLES = ("service-", "group-")


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who wants it.

    Attributes
    ----------
    groups
        Hub groups; ``None`` for a service, which has what it carries.
    carried
        Rights that the token carries.
    service
        The commands, which act for whoever runs the machine and may everything.
    """

    name: str
    groups: frozenset[str] | None = frozenset()
    carried: frozenset[str] = frozenset()
    service: bool = False

    def rights(self, known: Rights) -> frozenset[str]:
        """What the asker may hand out at most."""
        if self.service:
            return frozenset(RIGHTS)
        return self.carried if self.groups is None else known.given_by(self.groups) & self.carried

    def is_admin(self, known: Rights) -> bool:
        return self.service or (
            "admin" in known.roles_of(self.groups or ()) and frozenset(RIGHTS) <= self.rights(known)
        )


def need(asker: Asker, known: Rights, *rights: str) -> None:
    """Refuse whoever has none of these rights.

    Raises
    ------
    UserError
        403.
    """
    if not any(right in asker.rights(known) for right in rights):
        raise UserError(403, mark("For this you need the right {right}."), right=rights[0], reason="right")


def check_change(
    asker: Asker,
    known: Rights,
    person: str,
    present: Collection[str],
    add: Iterable[str],
    remove: Iterable[str],
) -> None:
    """Whether somebody may put a person into hub groups of ours and take them out of others.

    Raises
    ------
    UserError
        400 for going into and out of the same group; 403 for more than the asker has, or for raising
        oneself; 404 for a group or role that is not there.
    """
    adding, removing = set(add), set(remove)
    for name in sorted(adding & removing):
        raise UserError(400, mark("“{group}” cannot be given and taken at once."), group=name[:64])
    for name in sorted(adding | removing):
        _known(known, name, leaving=name in removing)
    roles = [name for name in adding | removing if name.startswith(ROLE_PREFIX)]
    if roles:
        need(asker, known, "people:manage")
    if adding | removing - set(roles):
        need(asker, known, "groups:manage", "people:manage")
    if asker.is_admin(known):
        return
    moved = known.roles_of(adding | removing)
    _no_more_than_own(asker, known, moved)
    # Also into a group that gives nothing: whoever manages groups could have it give something meanwhile.
    if asker.name == person and adding - set(present):
        raise UserError(
            403,
            mark("You cannot give yourself a role, nor put yourself into a group. Ask an administrator."),
            reason="yourself",
        )
    if moved and set(removing) & set(present):
        check_person(asker, known, person, present)


def check_person(asker: Asker, known: Rights, person: str, groups: Collection[str]) -> None:
    """Whether somebody may act on a person (block, delete, set a password): not on who may more.

    Raises
    ------
    UserError
        403.
    """
    if asker.is_admin(known):
        return
    if "admin" in known.roles_of(groups) or not known.given_by(groups) <= asker.rights(known):
        raise UserError(
            403,
            mark("“{name}” may more than you. Only an administrator can do this."),
            name=person,
            reason="escalation",
        )


def check_rights(asker: Asker, known: Rights, before: Iterable[str], after: Iterable[str]) -> None:
    """Whether somebody may change what a role allows.

    Raises
    ------
    UserError
        403 for a right that the asker does not have; 400 for one that there is not.
    """
    for right in after:
        if right not in RIGHTS:
            raise UserError(400, mark("There is no right “{right}”."), right=right[:64])
    if not set(before) | set(after) <= asker.rights(known):
        missing = sorted((set(before) | set(after)) - asker.rights(known))
        raise UserError(
            403,
            mark("You do not have {rights}, so you cannot decide who has."),
            rights=", ".join(missing),
            reason="escalation",
        )


def check_roles_of_group(
    asker: Asker, known: Rights, slug: str, before: Iterable[str], after: Iterable[str]
) -> None:
    """Whether somebody may change which roles a group gives.

    Raises
    ------
    UserError
        400 for the administrator's role, which only people have; 403; 404.
    """
    changed = set(before) ^ set(after)
    for role in after:
        if role not in known.roles:
            raise no_such_role(role, known)
    if "admin" in after:
        raise UserError(
            400, mark("A group cannot give the administrator's role: it is given to people one by one.")
        )
    if asker.is_admin(known):
        return
    _no_more_than_own(asker, known, changed)
    if changed and GROUP_PREFIX + slug in (asker.groups or ()):
        raise UserError(
            403,
            mark("You are in this group: which roles it gives somebody else has to change."),
            reason="yourself",
        )


def check_last_admin(admins: Collection[str], *without: str) -> None:
    """Whether an administrator who may sign in would be left without these people.

    Raises
    ------
    UserError
        409.
    """
    if without and set(admins) <= set(without):
        raise UserError(
            409,
            mark("“{name}” is the last administrator. Give the role to somebody else first."),
            name=without[0],
            reason="last-admin",
        )


def check_role_name(name: str) -> str:
    """A name for a role of one's own.

    Raises
    ------
    UserError
        400 with the rule.
    """
    if len(name) > ROLE_NAME_MOST or not ROLE_NAME.fullmatch(name) or name.startswith(RESERVED_ROLES):
        raise UserError(
            400,
            mark(
                "“{name}” cannot be the name of a role: small letters, digits and single hyphens, "
                "at most {most}; a title may be anything."
            ),
            name=name[:64],
            most=ROLE_NAME_MOST,
        )
    return name


def no_such_role(role: str, known: Rights) -> UserError:
    return UserError(
        404,
        mark("There is no role “{role}”. There are: {known}."),
        role=role[:64],
        known=", ".join(known.roles),
    )


def _no_more_than_own(asker: Asker, known: Rights, roles: Iterable[str]) -> None:
    for role in roles:
        if role == "admin" or not known.rights_of([role]) <= asker.rights(known):
            raise UserError(
                403,
                mark(
                    "The role “{role}” allows more than you may. Only an administrator can give or take it."
                ),
                role=role,
                reason="escalation",
            )


def _known(known: Rights, name: str, *, leaving: bool) -> None:
    if name.startswith(ROLE_PREFIX):
        if name.removeprefix(ROLE_PREFIX) not in known.roles and not leaving:
            raise no_such_role(name.removeprefix(ROLE_PREFIX), known)
    elif name.startswith(GROUP_PREFIX):
        if name.removeprefix(GROUP_PREFIX) not in known.groups and not leaving:
            raise UserError(
                404, mark("There is no group “{group}”."), group=name.removeprefix(GROUP_PREFIX)[:64]
            )
    else:
        raise UserError(400, mark("“{group}” is no group of ours."), group=name[:64])


def is_ours(group: str) -> bool:
    """Whether a hub group means something to us."""
    return group == BLOCKED or group.startswith((ROLE_PREFIX, GROUP_PREFIX))
