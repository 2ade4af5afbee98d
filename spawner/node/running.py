"""What begins when the node listens: readiness is told, presence reported, ssh answered."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from spawner.node import inherited
from spawner.node.place import Place
from spawner.node.presence import Reporter, http_sender
from spawner.node.ssh import SshListener


async def start(app: Any) -> None:
    """Start the node's own parts; tasks are kept on the app, which lives as long as they do."""
    place = Place.read(os.environ)
    inherited.tell_ready()
    parts: list[asyncio.Task[None]] = []
    presence = getattr(app.identity_provider, "presence", None)
    if presence is not None and place.portal_url:
        send = http_sender(place.portal_url, app.identity_provider.hub_auth.api_token)
        parts.append(asyncio.create_task(Reporter(presence, place, send, log=app.log).run()))
    ssh_fd = inherited.take("ssh")
    if ssh_fd is not None:
        listener = SshListener(socket.socket(fileno=ssh_fd), os.environ, log=app.log)
        parts.append(asyncio.create_task(listener.run()))
    app.galilean_parts = parts
