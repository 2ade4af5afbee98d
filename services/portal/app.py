"""The portal: every room's pages and the API, behind one address, one sign-in and one top bar.

It owns no rule: rooms bring ``routes()`` (patterns below ``/services/portal``) and a ``templates`` folder
beside them; :data:`ROOMS` is the list. The same process answers ``/health`` and ``/metrics``, outside the
proxied prefix, for the machine itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import os
import re
import secrets
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub.services.auth import HubOAuth
from prometheus_client import REGISTRY, Histogram, generate_latest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from galilean.db import Database
from galilean.hubapi import HubAPI
from galilean.settings import Settings, load_settings
from galilean.settled import settle
from galilean.web.assets import AssetHandler
from galilean.web.context import Portal
from galilean.web.handlers import CallbackHandler, NotFoundAPI, NotFoundPage
from galilean.web.jinja import portal_environment
from galilean.web.language import language_transform
from galilean.web.quiet import hide_form_ids
from galilean.web.streamed import StreamedHandler, TooLarge, content_length
from services.portal.budgets import budgets
from services.portal.chores import Chores
from services.portal.events import Watcher
from services.portal.frame import Frame
from services.portal.pages import help as help_pages
from services.portal.pages import welcome
from services.portal.seen import Seen

log = logging.getLogger("galilean.portal")

#: Of any request but an upload, which sets its own limit and is never held in memory.
MOST_BODY_BYTES = 2 * 2**20
#: Of a connection at once: an upload costs half as much processor time as with Tornado's 64 kB.
READ_BYTES = 256 * 2**10

#: Modules with ``routes()``; the first whose pattern fits answers.
ROOMS = (
    "services.portal.events",
    "services.portal.frame",
    "services.portal.meter_beside",
    "services.portal.pages.home",
    "services.portal.pages.online",
    "services.portal.pages.imports",
    "services.portal.pages.people",
    "services.portal.pages.ssh",
    "services.portal.pages.object_stores",
    "services.portal.pages.person",
    "services.portal.pages.roles",
    "services.portal.pages.audit",
    "services.portal.pages.site",
    "services.portal.pages.archives",
    "services.portal.pages.help",
    "services.portal.pages.status",
    "services.portal.pages.welcome",
    "services.portal.pages.overview",
    "services.portal.pages.machines",
    "services.portal.pages.image_places",
    "services.portal.pages.quotas",
    "services.portal.pages.release_rules",
    "services.portal.pages.sign_out",
    "services.portal.pages.schedules",
    "services.portal.pages.datasets",
    "services.portal.pages.disks",
    "services.portal.pages.all_datasets",
    "services.portal.pages.volumes",
    "services.portal.pages.projects",
    "services.portal.pages.class_forks",
    "services.portal.pages.explore",
    "services.portal.pages.environments",
    "services.portal.pages.workbenches",
    "services.portal.pages.search",
    "services.portal.pages.all_projects",
    "services.portal.pages.all_environments",
    "services.portal.pages.run",
    "services.portal.pages.image_upload",
    "services.portal.pages.builds",
    "services.portal.pages.my_images",
    "services.portal.pages.renewals",
    "services.portal.pages.losses",
    "services.portal.pages.port_people",
    "services.portal.pages.machine_time",
    "services.portal.api.handlers",
    "services.portal.pages.components",
)

PAGES = Path(__file__).parent / "pages" / "templates"
STATIC = Path(__file__).parent / "static"

_SECONDS = Histogram(
    "galilean_portal_answer_seconds",
    "Time to answer a request of the portal, by handler and status class.",
    ["handler", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)


class Health(RequestHandler):
    """Whether the process and its database answer."""

    async def get(self) -> None:
        portal: Portal = self.application.settings["portal"]
        try:
            await portal.db.run_read(lambda conn: conn.exec_driver_sql("SELECT 1").scalar())
        except Exception as error:
            log.warning("health: the database does not answer: %s", error)
            self.set_status(503)
            self.finish({"service": "portal", "ok": False, "problem": "the database does not answer"})
            return
        self.finish({"service": "portal", "ok": True})


class Metrics(RequestHandler):
    """Prometheus text."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(generate_latest(REGISTRY))


def make_portal(settings: Settings, environ: Mapping[str, str]) -> Portal:
    """The collaborators of a portal from settings and environment.

    Parameters
    ----------
    settings
        Of the site.
    environ
        The ``JUPYTERHUB_*`` variables of a service; see ``hub_config``.
    """
    base = environ.get("JUPYTERHUB_BASE_URL") or settings.web.base_url
    prefix = environ.get("JUPYTERHUB_SERVICE_PREFIX") or base + "services/portal/"
    host = environ.get("JUPYTERHUB_HOST", "").rstrip("/")
    api_url, token = environ["JUPYTERHUB_API_URL"], environ["JUPYTERHUB_API_TOKEN"]
    oauth = HubOAuth(
        base_url=prefix,
        hub_host=host,
        hub_prefix=base + "hub/",
        api_url=api_url,
        api_token=token,
        oauth_client_id=environ.get("JUPYTERHUB_CLIENT_ID", "service-portal"),
        oauth_redirect_uri=environ.get("JUPYTERHUB_OAUTH_CALLBACK_URL") or prefix + "oauth_callback",
        access_scopes=set(
            json.loads(environ.get("JUPYTERHUB_OAUTH_ACCESS_SCOPES", '["access:services!service=portal"]'))
        ),
        cache_max_age=30,
        cookie_options={"samesite": "Lax"},
        cookie_host_prefix_enabled=host.startswith("https://"),
    )
    jinja = portal_environment([PAGES], {"portal/": STATIC})
    portal = Portal(
        settings=settings,
        db=Database(settings.database_url, threads=4),
        hub=HubAPI(api_url, token),
        oauth=oauth,
        jinja=jinja,
        assets=jinja.globals["assets"],  # type: ignore[arg-type]
        prefix=prefix,
        hub_url=f"{host}{base}hub/",
        hub_host=host,
    )
    frame = Frame(portal)
    portal.parts["frame"] = frame
    portal.parts["machines_url"] = environ.get("GALILEAN_MACHINES_URL", "").rstrip("/")
    portal.parts["machines_token"] = token
    portal.parts["images_url"] = environ.get("GALILEAN_IMAGES_URL", "").rstrip("/")
    portal.parts["watcher"] = Watcher(portal)
    portal.parts["chores"] = Chores(portal)
    portal.parts["budget_seconds"] = budgets(settings)
    seen = portal.parts["seen"] = Seen(portal)
    portal.extras += [frame.extras, seen.extras, welcome.extras, help_pages.extras]
    return portal


class PortalApplication(Application):
    """Answers a body that is too large in words, whoever it is for."""

    def get_handler_delegate(
        self, request: Any, target_class: Any, target_kwargs: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        length = content_length(request)
        if (length is None or length > MOST_BODY_BYTES) and not issubclass(target_class, StreamedHandler):
            target_class, target_kwargs = TooLarge, None
        return super().get_handler_delegate(request, target_class, target_kwargs, *args, **kwargs)


def make_app(portal: Portal, *, cookie_secret: bytes) -> Application:
    """The Tornado application of a portal."""
    prefix = portal.prefix.rstrip("/")
    routes: list[Any] = [
        (r"/health", Health),
        (r"/metrics", Metrics),
        (re.escape(prefix) + r"/static/(.*)", AssetHandler, {"assets": portal.assets}),
        (re.escape(prefix) + r"/oauth_callback", CallbackHandler),
    ]
    for room in ROOMS:
        for pattern, handler in importlib.import_module(room).routes():
            routes.append((re.escape(prefix) + pattern, handler))
    routes.append((re.escape(prefix) + r"/api/.*", NotFoundAPI))
    return PortalApplication(
        routes,
        portal=portal,
        cookie_secret=cookie_secret,
        # Checked by our handlers once it is known whether a token came (galilean.web.handlers).
        xsrf_cookies=False,
        # Scripts read it from the page.
        xsrf_cookie_kwargs={
            "httponly": True,
            "samesite": "Lax",
            "secure": portal.settings.web.https,
        },
        transforms=[language_transform(portal.settings.site.language)],
        default_handler_class=NotFoundPage,
        log_function=_measure,
        websocket_ping_interval=30,
    )


def _measure(handler: RequestHandler) -> None:
    status = handler.get_status()
    seconds = handler.request.request_time()
    if not getattr(handler, "long", False):
        _SECONDS.labels(type(handler).__name__, f"{status // 100}xx").observe(seconds)
    level = logging.DEBUG if status < 400 else logging.INFO if status < 500 else logging.WARNING
    # The path only: a query may hold what people typed.
    log.log(level, "%s %s %s %.0f ms", status, handler.request.method, handler.request.path, seconds * 1000)


def read_cookie_secret(settings: Settings, environ: Mapping[str, str]) -> bytes:
    """The secret that signs the portal's cookies: from the environment, else a file made once (0600)."""
    given = environ.get("GALILEAN_COOKIE_SECRET", "")
    if given:
        return given.encode()
    path = settings.state / "secrets" / "portal_cookie"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    return path.read_text().strip().encode()


async def serve(
    settings: Settings, environ: Mapping[str, str], *, sockets: list[socket.socket] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then let what is under way finish."""
    portal = make_portal(settings, environ)
    app = make_app(portal, cookie_secret=read_cookie_secret(settings, environ))
    server = HTTPServer(app, xheaders=True, max_body_size=MOST_BODY_BYTES, chunk_size=READ_BYTES)
    if sockets is None:
        host = environ.get("GALILEAN_SERVICE_HOST") or "127.0.0.1"
        sockets = bind_sockets(int(environ.get("GALILEAN_SERVICE_PORT", "0") or 0), host)
    server.add_sockets(sockets)
    log.info("portal listens on port %s", sockets[0].getsockname()[1])
    watcher: Watcher = portal.parts["watcher"]
    chores: Chores = portal.parts["chores"]
    beside = [asyncio.create_task(watcher.run()), asyncio.create_task(chores.run())]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    server.stop()
    watcher.close()
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)  # the lease is let go
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.close_all_connections(), 3)
    if "archives" in portal.parts:
        await portal.parts["archives"].close()
    if "file_jobs" in portal.parts:
        await portal.parts["file_jobs"].close()  # what is half-made is taken back
    await portal.hub.close()
    portal.files.shutdown()
    portal.db.close()


def main() -> None:
    """``python -m services.portal``."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    hide_form_ids()
    settle()
    asyncio.run(serve(load_settings(), os.environ))
