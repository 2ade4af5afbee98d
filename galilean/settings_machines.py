"""The section ``machines:`` of ``galilean.yaml``: what the page Machines may do."""

from __future__ import annotations

import re
import string

from pydantic import Field, field_validator

from galilean.settings_places import Section

KUBEADM = "kubeadm join {server} --token {token} --discovery-token-ca-cert-hash {ca_hash} --node-name {name}"
_SERVER = re.compile(r"([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}", re.ASCII)


class Machines(Section):
    """The servers that carry nodes, as the page Machines shows and changes them."""

    add: bool = Field(
        default=False,
        description="Kubernetes: machines can be added from the page. The machines service then may make "
        "Secrets in kube-system, which are the tokens to join with.",
    )
    api_server: str = Field(
        default="",
        description="host:port at which machines that join reach the API server; empty = as the cluster says.",
    )
    join_command: str = Field(
        default=KUBEADM,
        description="What is run on a machine to join; {server}, {token}, {ca_hash} and {name} are filled in.",
    )
    token_minutes: int = Field(default=30, ge=5, le=1440, description="How long a token to join is good.")
    notice_hours: int = Field(
        default=24,
        ge=0,
        le=24 * 60,
        description="How long before a machine is taken out its people are told, unless a date is given.",
    )
    autoscaled: bool = Field(
        default=False,
        description="Machines come by themselves when they are needed: nothing is refused because the "
        "machines that are there are too small.",
    )

    @field_validator("api_server")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        if value and not _SERVER.fullmatch(value):
            raise ValueError(f"is {value!r}: write it like kubernetes.example.edu:6443")
        return value

    @field_validator("join_command")
    @classmethod
    def _known_places(cls, value: str) -> str:
        places = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
        if not places <= {"server", "token", "ca_hash", "name"} or not {"token", "name"} <= places:
            raise ValueError("must name {token} and {name}, and nothing besides {server} and {ca_hash}")
        return value
