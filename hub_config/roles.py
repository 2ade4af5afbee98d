"""Who may do what: the hub's roles and scopes (design §1 and §2, AP-2).

A role of ours is a hub group ``galilean:<role>``; the hub role ``galilean-<role>`` is bound to that group.
So a role is granted and taken by moving a person in or out of a group, and the hub obeys at once, also for
tokens that exist already. The hub's own ``user`` role is redefined without ``servers``: somebody without a
role of ours can sign in and look, not run. A group that merely happens to be called ``admin`` gives nothing.

The services get the least that their work needs. What a page does for a visitor it does with the visitor's
token, whose scopes end at :data:`VISITOR`.
"""

from __future__ import annotations

from typing import Any

from galilean.web.visitor import GROUP_PREFIX, RIGHTS, RUN_SCOPE

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
        f"custom:galilean:{right}": {"description": f"In pages and the API: {right.replace(':', ', ')}."}
        for right in sorted(frozenset[str]().union(*RIGHTS.values()))
    },
}
PAGE_SCOPES = tuple(CUSTOM_SCOPES)
#: To be told people's mail addresses (:mod:`hub_config.mail_addresses`).
ADDRESSES_SCOPE = "custom:galilean:addresses"
CUSTOM_SCOPES[ADDRESSES_SCOPE] = {"description": "Learn the mail addresses of people, to write to them."}
#: The most that the portal may do for a visitor; the hub cuts it to what the visitor may.
VISITOR = ("read:users!user", "servers", "list:users", "read:users", "groups", *PAGE_SCOPES)
#: What a node's own token may: say that it is alive, know its owner's visitors, report to the portal.
NODE = ("users:activity!user", "access:servers!server", "access:services!service=portal")

SERVICE_SCOPES: dict[str, tuple[str, ...]] = {
    "portal": ("list:users", "read:users", "read:groups", "read:servers"),
    "metering": ("list:users", "read:servers"),
    "release": ("delete:servers", "read:servers", "list:users"),
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
    ),
}


def group_of(role: str) -> str:
    """The hub group that is a role."""
    return GROUP_PREFIX + role


def hub_role_of(role: str) -> str:
    """The hub role that belongs to a role of ours: ``galilean-student``."""
    return "galilean-" + role


def load_roles(roles: dict[str, Any]) -> list[dict[str, Any]]:
    """``JupyterHub.load_roles`` for the roles of the settings.

    Parameters
    ----------
    roles
        Name → role (only ``title`` is read).
    """
    loaded: list[dict[str, Any]] = [
        {"name": "user", "description": "Sign in and look around", "scopes": list(LOOK)}
    ]
    for name, role in roles.items():
        rights = [f"custom:galilean:{right}" for right in sorted(RIGHTS.get(name, ()))]
        scopes = [*RUN, *(ADMIN if name == "admin" else ()), *rights]
        loaded.append(
            {
                "name": hub_role_of(name),
                "description": getattr(role, "title", "") or name,
                "scopes": list(dict.fromkeys(scopes)),
                "groups": [group_of(name)],
            }
        )
    loaded += [
        {
            "name": f"galilean-service-{service}",
            "description": f"What the service {service} needs",
            "scopes": list(scopes),
            "services": [service],
        }
        for service, scopes in SERVICE_SCOPES.items()
    ]
    return loaded


def load_groups(roles: dict[str, Any], members: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """``JupyterHub.load_groups``: one group per role, with those that must be in it from the start."""
    return {group_of(name): {"users": sorted(members.get(name, ()))} for name in roles}
