"""Who waits for a role, and giving one (AP-2).

A person waits who can sign in and has no role, neither of their own nor by a group of people, and is not
blocked. Giving and taking roles is :mod:`hub_config.people_api`'s, with the token of whoever gives them, so
that the hub decides whether that person may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from galilean.errors import UserError, mark
from galilean.hubapi import HubAPI
from galilean.rights import BLOCKED, ROLE_PREFIX, Rights, own_roles, slugs_of


@dataclass(frozen=True, kw_only=True)
class Account:
    """A person as the hub knows them.

    Attributes
    ----------
    name
        User name.
    roles
        The person's own roles, in the order of the roles.
    effective
        Those and the roles of their groups.
    groups
        Slugs of the groups of people.
    blocked
        May neither sign in nor start anything.
    created, last_activity
        ISO 8601, as the hub says; empty when it does not.
    """

    name: str
    roles: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    blocked: bool = False
    created: str = ""
    last_activity: str = ""

    @property
    def waits(self) -> bool:
        """Whether the person has no role yet."""
        return not self.effective and not self.blocked


def account_of(model: Mapping[str, Any], rights: Rights) -> Account:
    """An account from the hub's model of a person."""
    groups = tuple(model.get("groups") or ())
    own = set(own_roles(groups))
    return Account(
        name=model["name"],
        roles=tuple(role for role in rights.roles if role in own),
        effective=rights.roles_of(groups),
        groups=tuple(sorted(slug for slug in slugs_of(groups) if slug in rights.groups)),
        blocked=BLOCKED in groups,
        created=model.get("created") or "",
        last_activity=model.get("last_activity") or "",
    )


def accounts(models: Iterable[Mapping[str, Any]], rights: Rights) -> list[Account]:
    """All accounts: those that wait first, the longest first; then by name."""
    found = [account_of(model, rights) for model in models]
    return sorted(found, key=lambda a: (not a.waits, a.created if a.waits else "", a.name))


async def list_accounts(hub: HubAPI, rights: Rights) -> list[Account]:
    """All accounts that the token of ``hub`` may list."""
    return accounts(await hub.users(), rights)


async def count_waiting(hub: HubAPI, rights: Rights) -> int:
    """How many wait for a role: the badge that administrators see."""
    return sum(account.waits for account in await list_accounts(hub, rights))


async def grant(hub: HubAPI, name: str, role: str, rights: Rights) -> None:
    """Give a role. ``hub`` carries the token of whoever gives it; having it already is success.

    Raises
    ------
    UserError
        404 for an unknown role or person, 403 when the hub says that the giver may not.
    """
    await hub.add_to_group(_group(role, rights), name)


async def take(hub: HubAPI, name: str, role: str, rights: Rights, *, keep_one_admin: bool = True) -> None:
    """Take a role away; it counts at once, also for tokens that exist.

    Raises
    ------
    UserError
        As :func:`grant`; 409 when nobody would be left as administrator.
    """
    group = _group(role, rights)
    if role == "admin" and keep_one_admin:
        admins = [account.name for account in await list_accounts(hub, rights) if "admin" in account.roles]
        if set(admins) <= {name}:
            raise UserError(
                409,
                mark("“{name}” is the last administrator. Give the role to somebody else first."),
                name=name,
            )
    await hub.remove_from_group(group, name)


def _group(role: str, rights: Rights) -> str:
    if role not in rights.roles:
        raise UserError(
            404,
            mark("There is no role “{role}”. There are: {known}."),
            role=role[:60],
            known=", ".join(rights.roles),
        )
    return ROLE_PREFIX + role
