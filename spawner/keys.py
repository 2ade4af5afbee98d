"""Secrets of one cluster, made anew for each run and known to its nodes alone."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from spawner.node.ssh import HOST_ALIAS


@dataclass(frozen=True, kw_only=True)
class ClusterKeys:
    """What the nodes of a cluster share.

    Attributes
    ----------
    cookie_secret
        One sign-in counts on all nodes.
    host, person
        Private keys in OpenSSH's form: of every node's sshd, and of whoever logs in from a node.
    known_hosts, authorized_keys
        The public halves, in the form of the files of these names.
    """

    cookie_secret: bytes = field(repr=False)
    host: bytes = field(repr=False)
    person: bytes = field(repr=False)
    known_hosts: bytes
    authorized_keys: bytes

    @classmethod
    def new(cls) -> ClusterKeys:
        """Keys for one run."""
        host, host_public = _pair()
        person, person_public = _pair()
        return cls(
            cookie_secret=secrets.token_bytes(32),
            host=host,
            person=person,
            known_hosts=HOST_ALIAS.encode() + b" " + host_public,
            authorized_keys=person_public,
        )

    def ssh_files(self) -> dict[str, bytes]:
        """Contents by the file names that :mod:`spawner.node.ssh` expects."""
        return {
            "host_ed25519": self.host,
            "id_ed25519": self.person,
            "authorized_keys": self.authorized_keys,
            "known_hosts": self.known_hosts,
        }


def _pair() -> tuple[bytes, bytes]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public + b"\n"
