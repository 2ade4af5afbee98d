"""Public keys for ssh by the API, and what a node asks of them (TI-19)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field
from sqlalchemy import Connection

from galilean.errors import UserError
from galilean.rights import BLOCKED
from services.people import ssh_keys
from services.people.ssh_keys import TEXT_MOST, KeptKey
from services.portal.api import models
from services.portal.api.base import Handler
from services.portal.api.node import NodeAsks, NodeHandler, own_run
from services.portal.api.operation import Operation
from services.portal.api.presence import check_token
from services.portal.ssh import add_key, keys_of, remove_key


class NewSshKey(models.Incoming):
    """A key of one's own."""

    public_key: str = Field(
        max_length=2 * TEXT_MOST, description="The line of a file that ends in .pub; no options before it."
    )
    name: str = Field(default="", max_length=200, description="Empty = what stands behind the key.")


class SshKey(models.Outgoing):
    """A public key."""

    id: str
    name: str
    kind: str
    fingerprint: str
    public_key: str
    added_at: datetime
    used_at: datetime | None


class NodeUses(NodeAsks):
    """Which node asks, and which keys somebody came in with just now."""

    used: list[str] = Field(default=[], max_length=32)


class NodeKey(models.Outgoing):
    """A key that a node lets in."""

    fingerprint: str
    public: str


class NodeKeys(models.Outgoing):
    """Whom a node lets in by ssh."""

    keys: list[NodeKey]
    forward: Literal["localhost", "anywhere", "no"]


def model(key: KeptKey) -> SshKey:
    """A key as the API shows it."""
    return SshKey(
        id=key.id,
        name=key.name,
        kind=key.kind,
        fingerprint=key.fingerprint,
        public_key=key.public,
        added_at=key.added_at,
        used_at=key.used_at,
    )


class SshKeys(Handler):
    async def get(self) -> None:
        found = await keys_of(self.portal, self.person.name)
        self.write_json(models.ListOf[SshKey](items=[model(key) for key in found], next=None))

    async def post(self) -> None:
        body = self.body(NewSshKey)
        self.write_json(model(await add_key(self, body.public_key, body.name)), 201)


class OneSshKey(Handler):
    async def delete(self, key_id: str) -> None:
        await remove_key(self, key_id)
        self.set_status(204)


class NodesKeys(NodeHandler):
    """Told anew at every connection. Nobody who is blocked comes in, and nobody where there is no ssh."""

    async def post(self) -> None:
        body = self.body(NodeUses)
        check_token(self.person, body.server)
        settings, now = self.portal.settings.ssh, self.portal.clock()
        person = self.person
        lets_in = settings.enabled
        if lets_in:
            try:
                lets_in = BLOCKED not in await self.portal.people.groups(person.name)
            except UserError as error:
                if error.status >= 500:
                    raise
                lets_in = False

        def look(conn: Connection) -> list[KeptKey]:
            own_run(conn, person, body)
            if body.used:
                ssh_keys.used(conn, person.name, body.used, now)
            return ssh_keys.keys_of(conn, person.name) if lets_in else []

        found = await (self.portal.db.run if body.used else self.portal.db.run_read)(look)
        self.write_json(
            NodeKeys(
                keys=[NodeKey(fingerprint=key.fingerprint, public=key.public) for key in found],
                forward=settings.forward,
            )
        )


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/ssh-keys",
        summary="List one's own public keys for ssh",
        answers={200: models.ListOf[SshKey]},
    ),
    Operation(
        method="post",
        path="/ssh-keys",
        summary="Keep a public key: who has its private half comes into one's running nodes",
        takes=NewSshKey,
        answers={201: SshKey},
    ),
    Operation(
        method="delete",
        path="/ssh-keys/{id}",
        summary="Take a key away; who came in with it is cut off within seconds",
        answers={204: None},
    ),
    Operation(
        method="post",
        path="/node/ssh-keys",
        summary="Whom a node lets in by ssh (a node's own token)",
        takes=NodeUses,
        answers={200: NodeKeys},
    ),
)


def routes() -> list[tuple[str, type[Handler]]]:
    """Addresses, relative to the portal's prefix."""
    return [
        (r"/api/v1/ssh-keys", SshKeys),
        (r"/api/v1/ssh-keys/([0-9A-Za-z]{1,40})", OneSshKey),
        (r"/api/v1/node/ssh-keys", NodesKeys),
    ]
