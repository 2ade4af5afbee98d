"""The sections ``ssh:`` and ``ports:`` of ``galilean.yaml``: ways into nodes besides one's own browser."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from galilean.settings_places import Section


class Ssh(Section):
    """ssh into one's own nodes from outside, through the web address: no port is opened for it."""

    enabled: bool = Field(default=True, description="Whether people reach their own nodes by ssh.")
    keys_most: int = Field(default=20, ge=1, le=200, description="Public keys that one person keeps.")
    forward: Literal["localhost", "anywhere", "no"] = Field(
        default="localhost",
        description="Where `ssh -L` leads: to ports of the node (editors need it), anywhere that the node "
        "reaches and to sockets by their path, or nowhere.",
    )
    account: str = Field(
        default="",
        pattern=r"^[a-z_][a-z0-9_.-]{0,31}$|^$",
        description="The account in nodes, as the ready lines name it; empty = that of our images, and of this "
        "machine with backend process.",
    )


class PortsSection(Section):
    """Ports of people's programs."""

    share: bool = Field(
        default=False,
        description="Whether people may let others, by name, open a port of their running cluster. Needs "
        "web.subdomain_host: else all pages share one origin.",
    )
