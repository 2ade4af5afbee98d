"""What begins when the node listens: readiness is told, presence and work reported, ssh answered, its API open."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from spawner.node import inherited
from spawner.node.api import NodeParts
from spawner.node.busy import Busy
from spawner.node.command import start_command
from spawner.node.headless import Headless
from spawner.node.place import Place
from spawner.node.presence import Reporter, http_sender
from spawner.node.ssh import SshListener
from spawner.node.ssh_door import Door, portal_asks
from spawner.node.standing import PATIENT_SECONDS, Standing, http_fetch
from spawner.node.visitors import SETTING as VISITORS
from spawner.node.visitors import Visitors, say_guarded
from spawner.node.visitors import portal_asks as asks_of_visitors


async def start(app: Any) -> None:
    """Start the node's own parts; tasks are kept on the app, which lives as long as they do."""
    place = Place.read(os.environ)
    inherited.tell_ready()
    parts: list[asyncio.Task[None]] = []
    headless: Headless | None = getattr(app.kernel_manager, "headless", None)
    if headless is not None:
        headless.begin(app.session_manager, app.contents_manager, app.log)
    busy = Busy(
        place,
        kernels=app.kernel_manager,
        terminals=lambda: getattr(app.web_app.settings.get("terminal_manager"), "terminals", {}),
        queued=lambda: headless.waiting() if headless is not None else 0,
    )
    ssh_fd = inherited.take("ssh")
    listener: SshListener | None = None
    if ssh_fd is not None:
        listener = SshListener(socket.socket(fileno=ssh_fd), os.environ, log=app.log)
        parts.append(asyncio.create_task(listener.run()))
    presence = getattr(app.identity_provider, "presence", None)
    token = getattr(getattr(app.identity_provider, "hub_auth", None), "api_token", "")
    if presence is not None and place.portal_url:
        send = http_sender(place.portal_url, token)
        parts.append(asyncio.create_task(Reporter(presence, place, send, log=app.log, work=busy).run()))
    fetch = http_fetch(place.portal_url, token)
    if place.portal_url:
        app.web_app.settings["galilean_ssh"] = Door(os.environ, portal_asks(fetch, place), log=app.log)
        app.web_app.settings[VISITORS] = Visitors(asks_of_visitors(fetch, place), log=app.log)
        parts.append(asyncio.create_task(say_guarded(fetch, place)))
        parts.append(asyncio.create_task(_tell_applications(app, fetch, place)))
    standing = Standing(
        place,
        fetch,
        lambda: {
            "busy": {**(told := busy.told()), "batch": told["processes"]},
            "headless": headless.told() if headless is not None else [],
        },
        log=app.log,
        patient=http_fetch(place.portal_url, token, seconds=PATIENT_SECONDS),
    )
    app.web_app.settings["galilean_parts"] = NodeParts(
        standing=standing,
        look=busy.look,
    )
    app.galilean_parts = parts
    app.galilean_command = await asyncio.to_thread(start_command, os.environ, app.log)


async def _tell_applications(app: Any, fetch: Any, place: Place) -> None:
    """Find out which applications this node has, and show them."""
    from spawner.node.applications import tell

    settings = app.web_app.settings
    applications = settings.get("galilean_applications")
    if applications is None:  # a node without user ports
        return
    from spawner.node.application_pages import show_tiles

    desktops = settings.get("galilean_desktops")
    if desktops is not None:
        applications.desktop = desktops.offer
    language = os.environ.get("GALILEAN_LANGUAGE", "")
    learned = lambda names: show_tiles(settings, applications, language)  # noqa: E731
    await tell(applications, fetch, place, log=app.log, learned=learned)
