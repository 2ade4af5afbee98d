"""Who may do what: the hub's roles and scopes (design §1 and §2, AP-2).

A role of ours is a hub group ``galilean:<role>``; the hub role ``galilean-<role>`` is bound to that group, and
to each group of people (``galilean-group:<slug>``) that gives it. So a role is granted and taken by moving a
person in or out of a group, and the hub obeys at once, also for tokens that exist already. Which roles there
are and what they allow stands in our tables (:mod:`galilean.rights`); :mod:`hub_config.role_sync` makes the
hub follow when administrators change them. The hub's own ``user`` role is redefined without ``servers``: somebody without a
role of ours can sign in and look, not run. A group that merely happens to be called ``admin`` gives nothing.

The services get the least that their work needs. What a page does for a visitor it does with the visitor's
token, whose scopes end at :data:`VISITOR`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from galilean.centre import RIGHTS
from galilean.rights import BLOCKED, GROUP_PREFIX, ROLE_PREFIX, Rights
from galilean.web.visitor import RUN_SCOPE, scope_of

#: Everybody who can sign in.
LOOK = (
    "read:users!user",
    "users:activity!user",
    "read:tokens!user",
    "access:servers!user",
    "access:services!service=portal",
)
#: Everybody with a role.
RUN = ("servers!user", "tokens!user", RUN_SCOPE)
ADMIN = (
    "admin-ui",
    "admin:users",
    "admin:servers",
    "tokens",
    "admin:groups",
    "list:users",
    "read:users",
    "list:services",
    "read:services",
    "read:hub",
    "read:roles",
    "read:metrics",
    "access:servers",
    "proxy",
)
#: What pages allow beyond one's own things, as scopes, so that tokens can carry less than a person may.
CUSTOM_SCOPES: dict[str, dict[str, Any]] = {
    RUN_SCOPE: {"description": "Change things by the portal's API: projects, files, virtual clusters."},
    **{
        scope_of(right): {"description": f"In pages and the API: {right.replace(':', ', ')}."}
        for right in RIGHTS
    },
}
PAGE_SCOPES = tuple(CUSTOM_SCOPES)
#: To be told people's mail addresses (:mod:`hub_config.mail_addresses`).
ADDRESSES_SCOPE = "custom:galilean:addresses"
CUSTOM_SCOPES[ADDRESSES_SCOPE] = {"description": "Learn the mail addresses of people, to write to them."}
#: To have the hub read our roles and groups again.
SYNC_SCOPE = "custom:galilean:sync"
CUSTOM_SCOPES[SYNC_SCOPE] = {"description": "Have the hub follow a change of roles and groups at once."}
#: To have a claim looked at on machines (:mod:`hub_config.claim_looks`).
LOOK_SCOPE = "custom:galilean:look"
CUSTOM_SCOPES[LOOK_SCOPE] = {"description": "Have a claim of Kubernetes looked at on machines."}
#: What a right of ours needs of the hub's own API, besides its custom scope. None lets anybody move people
#: between groups or make accounts: that goes through handlers of ours, which look at who gives what to whom.
RIGHT_SCOPES: Mapping[str, tuple[str, ...]] = {
    "clusters:read-all": ("list:users", "read:servers"),
    "clusters:release-all": ("list:users", "read:servers", "delete:servers"),
    "groups:manage": ("list:users", "read:users", "read:groups"),
    "people:manage": ("list:users", "read:users", "read:groups"),
    "usage:read-all": ("list:users",),
}
#: The most that the portal may do for a visitor; the hub cuts it to what the visitor may.
VISITOR = ("read:users!user", "tokens!user", "servers", "list:users", "read:users", "groups", *PAGE_SCOPES)
#: What a node's own token may: say that it is alive, know its owner's visitors, report to the portal.
NODE = ("users:activity!user", "access:servers!server", "access:services!service=portal")

SERVICE_SCOPES: dict[str, tuple[str, ...]] = {
    "portal": ("list:users", "read:users", "read:groups", "read:servers", SYNC_SCOPE, LOOK_SCOPE),
    "metering": ("list:users", "read:servers"),
    "release": ("delete:servers", "start:servers", "read:servers", "list:users", ADDRESSES_SCOPE),
    "queue": ("start:servers", "read:servers", "list:users"),
    "machines": (ADDRESSES_SCOPE,),
    "command": (
        "admin:users",
        "tokens",
        "groups",
        "list:users",
        "read:users",
        "read:servers",
        "delete:servers",
        "proxy",
        "read:hub",
        SYNC_SCOPE,
        LOOK_SCOPE,
        scope_of("people:manage"),
        scope_of("groups:manage"),
    ),
}


def group_of(role: str) -> str:
    """The hub group that is a role."""
    return ROLE_PREFIX + role


def hub_role_of(role: str) -> str:
    """The hub role that belongs to a role of ours: ``galilean-student``."""
    return "galilean-" + role


def scopes_of(role: str, rights: frozenset[str]) -> list[str]:
    """What the hub lets the members of a role do."""
    found = [*RUN, *(ADMIN if role == "admin" else ())]
    for right in sorted(rights):
        found += [scope_of(right), *RIGHT_SCOPES.get(right, ())]
    return list(dict.fromkeys(found))


def role_specs(rights: Rights) -> list[dict[str, Any]]:
    """The hub roles that are roles of ours, each with its groups."""
    return [
        {
            "name": hub_role_of(name),
            "description": role.title or name,
            "scopes": scopes_of(name, role.rights),
            "groups": [
                group_of(name),
                *(GROUP_PREFIX + slug for slug, group in rights.groups.items() if name in group.roles),
            ],
        }
        for name, role in rights.roles.items()
    ]


def load_roles(rights: Rights) -> list[dict[str, Any]]:
    """``JupyterHub.load_roles``: what everybody may, our roles, and what services need."""
    return [
        {"name": "user", "description": "Sign in and look around", "scopes": list(LOOK)},
        *role_specs(rights),
        *(
            {
                "name": f"galilean-service-{service}",
                "description": f"What the service {service} needs",
                "scopes": list(scopes),
                "services": [service],
            }
            for service, scopes in SERVICE_SCOPES.items()
        ),
    ]


def load_groups(rights: Rights, members: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """``JupyterHub.load_groups``: roles with those that must be in them from the start, people's groups."""
    found: dict[str, dict[str, Any]] = {
        group_of(name): {"users": sorted(members.get(name, ()))} for name in rights.roles
    }
    for slug in rights.groups:
        found[GROUP_PREFIX + slug] = {"users": []}
    found[BLOCKED] = {"users": []}
    return found
