"""Who waits for a role, and giving one (AP-2).

A person waits who can sign in and is in no group ``galilean:<role>``. Roles are given and taken through the
hub with the token of whoever gives them, so that the hub decides whether that person may.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from galilean.errors import UserError, mark
from galilean.hubapi import HubAPI

PREFIX = "galilean:"


@dataclass(frozen=True, kw_only=True)
class Account:
    """A person as the hub knows them.

    Attributes
    ----------
    name
        User name.
    roles
        Roles of ours, in the order of the settings.
    created, last_activity
        ISO 8601, as the hub says; empty when it does not.
    """

    name: str
    roles: tuple[str, ...] = ()
    created: str = ""
    last_activity: str = ""

    @property
    def waits(self) -> bool:
        """Whether the person has no role yet."""
        return not self.roles


def account_of(model: Mapping[str, Any], known_roles: Iterable[str]) -> Account:
    """An account from the hub's model of a person."""
    groups = set(model.get("groups") or ())
    return Account(
        name=model["name"],
        roles=tuple(role for role in known_roles if PREFIX + role in groups),
        created=model.get("created") or "",
        last_activity=model.get("last_activity") or "",
    )


def accounts(models: Iterable[Mapping[str, Any]], known_roles: Collection[str]) -> list[Account]:
    """All accounts: those that wait first, the longest first; then by name."""
    found = [account_of(model, known_roles) for model in models]
    return sorted(found, key=lambda a: (not a.waits, a.created if a.waits else "", a.name))


async def list_accounts(hub: HubAPI, known_roles: Collection[str]) -> list[Account]:
    """All accounts that the token of ``hub`` may list."""
    return accounts(await hub.users(), known_roles)


async def count_waiting(hub: HubAPI, known_roles: Collection[str]) -> int:
    """How many wait for a role: the badge that administrators see."""
    return sum(account.waits for account in await list_accounts(hub, known_roles))


async def grant(hub: HubAPI, name: str, role: str, known_roles: Collection[str]) -> None:
    """Give a role. ``hub`` carries the token of whoever gives it; having it already is success.

    Raises
    ------
    UserError
        404 for an unknown role or person, 403 when the hub says that the giver may not.
    """
    await hub.add_to_group(_group(role, known_roles), name)


async def take(
    hub: HubAPI, name: str, role: str, known_roles: Collection[str], *, keep_one_admin: bool = True
) -> None:
    """Take a role away; it counts at once, also for tokens that exist.

    Raises
    ------
    UserError
        As :func:`grant`; 409 when nobody would be left as administrator.
    """
    group = _group(role, known_roles)
    if role == "admin" and keep_one_admin:
        admins = [
            account.name for account in await list_accounts(hub, known_roles) if "admin" in account.roles
        ]
        if set(admins) <= {name}:
            raise UserError(
                409,
                mark("“{name}” is the last administrator. Give the role to somebody else first."),
                name=name,
            )
    await hub.remove_from_group(group, name)


def _group(role: str, known_roles: Collection[str]) -> str:
    if role not in known_roles:
        raise UserError(
            404,
            mark("There is no role “{role}”. There are: {known}."),
            role=role[:60],
            known=", ".join(known_roles),
        )
    return PREFIX + role
