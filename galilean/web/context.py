"""What every handler of the portal is handed: no globals, one object made at start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from jupyterhub.services.auth import HubOAuth

from galilean.clock import Clock, utcnow
from galilean.db import Database
from galilean.file_threads import FileThreads
from galilean.hubapi import HubAPI
from galilean.rights import Known
from galilean.settings import Settings
from galilean.web.assets import Assets
from galilean.web.visitor import People

if TYPE_CHECKING:
    from galilean.web.handlers import PageHandler

#: Adds variables to every page: the meter in the top bar, badges of the navigation.
PageExtras = Callable[["PageHandler"], Awaitable[dict[str, Any]]]


@dataclass(kw_only=True)
class Portal:
    """The collaborators of a handler.

    Attributes
    ----------
    hub
        With the portal's own token: for what is not the visitor's act (reading groups).
    oauth
        JupyterHub's client for sign-in and for naming the owner of a token.
    prefix
        ``/services/portal/``.
    hub_url
        Where browsers reach the hub: ``/hub/``, or a whole address when hosts are split.
    files
        Threads for file work of the catalogue: nothing blocks the loop, and no volume the others.
    extras
        Functions that add variables to every page.
    """

    settings: Settings
    db: Database
    hub: HubAPI
    oauth: HubOAuth
    jinja: Environment
    assets: Assets
    prefix: str = "/services/portal/"
    hub_url: str = "/hub/"
    hub_host: str = ""
    clock: Clock = utcnow
    files: FileThreads = field(default_factory=FileThreads)
    extras: list[PageExtras] = field(default_factory=list)
    people: People = None  # type: ignore[assignment]
    rights: Known = None  # type: ignore[assignment]
    parts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.people is None:
            self.people = People(self.hub)
        if self.rights is None:
            self.rights = Known(self.db)

    @property
    def user_url(self) -> str:
        """Prefix of nodes' addresses without a person's host: ``/user/``."""
        return self.settings.web.base_url + "user/"
