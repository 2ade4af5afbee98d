"""The section ``docker:`` of ``galilean.yaml``: the backend whose nodes are containers of one machine."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Literal

from pydantic import Field, field_validator

from galilean.settings_places import NOT_OUTSIDE, Section

_INSTANCE = re.compile(r"[a-z0-9][a-z0-9-]{0,30}", re.ASCII)
_ACCOUNT = re.compile(r"[1-9][0-9]{0,8}:[1-9][0-9]{0,8}", re.ASCII)
#: The length of the prefix of the smallest network that a cluster gets.
_PIECE = 27


class Docker(Section):
    """The backend for one server: nodes are containers, people are apart, limits hold."""

    url: str = Field(
        default="", description="The daemon; empty = as DOCKER_HOST says, else /var/run/docker.sock."
    )
    instance: str = Field(
        default="galilean",
        description="Begins the names of all containers and networks. Give each installation on one daemon its own.",
    )
    image: str = Field(default="", description="Image of the environments that name none.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    home_dir: str = Field(default="/home/jovyan", description="HOME of the account in the image.")
    account: str = Field(
        default="1000:1000",
        description="uid:gid of nodes, never root; the account must be in the image. Run Galilean as the same "
        "one, so that projects belong to both.",
    )
    network_pool: str = Field(
        default="10.213.0.0/16",
        description="Private addresses that nobody else here uses, in CIDR form, at least a /26: every cluster "
        "gets a /27 of it (larger ones more), the first is where hub and portal listen.",
    )
    outside: bool = Field(
        default=True, description="Whether nodes reach the outside, such as package indexes."
    )
    not_outside: tuple[str, ...] = Field(
        default=NOT_OUTSIDE, description="Networks that do not count as the outside, in CIDR form."
    )
    reaches: tuple[str, ...] = Field(
        default=(), description="Networks that nodes reach all the same, such as a licence server's address."
    )
    gpus: tuple[str, ...] = Field(
        default=(), description="Ids of the machine's GPU cards as `nvidia-smi -L` says them; empty = none."
    )
    containers_apparmor: str = Field(
        default="unconfined",
        description="AppArmor profile of nodes in which containers are started (`containers` of an environment), where the "
        "machine has AppArmor: Docker's own forbids every mount.",
    )
    pids: int = Field(default=4096, ge=64, description="Processes and threads that a node may have.")
    shm_share: float = Field(
        default=0.5, ge=0, le=1, description="Size of /dev/shm as a share of a node's memory, of which it is."
    )
    cpu_overcommit: float = Field(
        default=1.0, gt=0, description="CPUs that may be held, as a multiple of the machine's."
    )
    memory_overcommit: float = Field(
        default=0.9, gt=0, description="The same for memory; what is left is for the machine itself."
    )

    @field_validator("instance")
    @classmethod
    def _name(cls, value: str) -> str:
        if not _INSTANCE.fullmatch(value):
            raise ValueError(f"is {value!r}: lower-case letters, digits and hyphens, at most 31")
        return value

    @field_validator("account")
    @classmethod
    def _not_root(cls, value: str) -> str:
        if not _ACCOUNT.fullmatch(value):
            raise ValueError(f"is {value!r}: write it like 1000:1000; nodes never run as root")
        return value

    @field_validator("network_pool")
    @classmethod
    def _pool(cls, value: str) -> str:
        try:
            pool = IPv4Network(value)
        except ValueError as error:
            raise ValueError(f"{error} (write it like 10.213.0.0/16)") from None
        if pool.prefixlen >= _PIECE:
            raise ValueError(f"{value} has no place for a cluster beside the hub; take at least a /26")
        return value

    @field_validator("not_outside", "reaches")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for net in value:
            try:
                ip_network(net)
            except ValueError as error:
                raise ValueError(f"{error} (write it like 10.0.0.0/8)") from None
        return value

    @field_validator("home_dir")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError(f"{value!r} is not an absolute path")
        return value.rstrip("/") or "/"

    @property
    def address(self) -> str:
        """The machine's own address in the pool: nodes reach hub and portal at it, and nobody else does."""
        return str(IPv4Address(int(IPv4Network(self.network_pool).network_address) + 1))
