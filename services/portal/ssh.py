"""ssh from outside, as pages and API show it: keys of the visitor's own, and the lines for ``~/.ssh/config`` (TI-19)."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import galilean.ssh_proxy
from galilean.errors import UserError, mark
from galilean.web.context import Portal
from galilean.web.handlers import BaseHandler
from services.people import ssh_keys
from services.people.ssh_keys import KeptKey
from services.portal.doors import node_url

#: The account of our images.
IMAGE_ACCOUNT = "jovyan"
#: What ssh calls a node: ``heat.galilean``, ``node-1.heat.galilean``.
SUFFIX = galilean.ssh_proxy.SUFFIX
SCRIPT_NAME = "galilean-ssh.py"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What is copied and pasted once.

    Attributes
    ----------
    fetch
        The command that fetches the script.
    token
        The command that keeps the token.
    config
        The block for ``~/.ssh/config``.
    """

    fetch: str
    token: str
    config: str


def script() -> bytes:
    """The proxy command as one file."""
    return Path(galilean.ssh_proxy.__file__).read_bytes()


def account_of(portal: Portal) -> str:
    """The account that people are in nodes."""
    if portal.settings.ssh.account:
        return portal.settings.ssh.account
    if portal.settings.backend == "process":
        return pwd.getpwuid(os.geteuid()).pw_name
    return IMAGE_ACCOUNT


def site_of(handler: BaseHandler) -> str:
    """Scheme and host by which this visitor's browser reaches the hub, without a slash."""
    web = handler.portal.settings.web
    for address in (web.subdomain_host, web.public_url):
        if address:
            scheme, _, rest = address.partition("://")
            return f"{scheme}://{rest.partition('/')[0]}"
    return f"{handler.request.protocol}://{handler.request.host}"


def ready(handler: BaseHandler) -> Ready:
    """The lines for the visitor."""
    portal, name = handler.portal, handler.person.name
    site = site_of(handler)
    # Of the person's own host where there is one; a cluster's name comes behind it.
    nodes = node_url(portal, name, "", path="").removesuffix("/").removesuffix("/") + "/"
    if nodes.startswith("/"):
        nodes = site + nodes
    home = portal.prefix if "://" in portal.prefix else site + portal.prefix
    where = f"~/.ssh/{SCRIPT_NAME}"
    return Ready(
        fetch=f"curl -fsS --create-dirs -o {where} {home}ssh/{SCRIPT_NAME}",
        token=f"python3 {where} token",
        config="\n".join(
            [
                f"Host *{SUFFIX}",
                f"  User {account_of(portal)}",
                f"  ProxyCommand python3 {where} connect {nodes} %r@%h",
                "  UserKnownHostsFile ~/.ssh/galilean_hosts/%h",
                "  StrictHostKeyChecking yes",
                "  ServerAliveInterval 30",
            ]
        ),
    )


def host_of(server: str, rank: int) -> str:
    """What ssh calls a node."""
    return f"{'' if rank == 0 else f'node-{rank}.'}{server}{SUFFIX}"


def check_enabled(portal: Portal) -> None:
    """Refuse where the centre has no ssh.

    Raises
    ------
    UserError
        404.
    """
    if not portal.settings.ssh.enabled:
        raise UserError(404, mark("This centre lets nobody in by ssh."))


async def keys_of(portal: Portal, user: str) -> list[KeptKey]:
    """Somebody's keys."""
    return await portal.db.run_read(ssh_keys.keys_of, user)


async def add_key(handler: BaseHandler, text: str, name: str) -> KeptKey:
    """Keep a key of the visitor's own.

    Raises
    ------
    UserError
        400 for what is no key, 403 without a role, 404 where there is no ssh, 409 for one that is there.
    """
    portal = handler.portal
    check_enabled(portal)
    handler.need_role()
    now, address, most = portal.clock(), handler.address, portal.settings.ssh.keys_most

    def keep(conn: Any) -> KeptKey:
        return ssh_keys.add(conn, handler.person.name, text, name, most=most, address=address, now=now)

    return await portal.db.run_serialised("ssh-keys", keep)


async def remove_key(handler: BaseHandler, key_id: str) -> None:
    """Take a key of the visitor's own away: nobody comes in with it any more, and who did is cut off."""
    now, address, who = handler.portal.clock(), handler.address, handler.person.name

    def take(conn: Any) -> None:
        ssh_keys.remove(conn, who, key_id, actor=who, address=address, now=now)

    await handler.portal.db.run(take)
