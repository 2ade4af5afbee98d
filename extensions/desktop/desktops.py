"""The desktops of a node: the whole one, and one for each application that was opened alone."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from extensions.desktop import available
from extensions.desktop.choices import Application, Choices
from extensions.desktop.foreign import Foreign, ForeignSession
from extensions.desktop.session import Session
from spawner.node.listening import Ports

SIZES = ("1280x720", "1600x900", "1920x1080", "2560x1440")


class Desktops:
    """Makes desktops by their names; the empty name is the whole one.

    Parameters
    ----------
    environ
        The Jupyter server's environment.
    title
        Name of the node.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        title: str = "",
        which: available.Which = shutil.which,
        log: logging.Logger | None = None,
    ) -> None:
        self._environ = dict(os.environ if environ is None else environ)
        self._title = title or "Galilean"
        self._which = which
        self._log = log or logging.getLogger(__name__)
        self.choices = Choices.read(self._environ)
        self._offered: dict[str, Application] = {}
        self.home = Path(self._environ.get("HOME") or "/")
        self.foreign = Foreign.read(self._environ)
        self._made: dict[str, Session | ForeignSession] = {}

    def get(self, name: str, language: str = "") -> Session | ForeignSession | None:
        """The desktop of that name, made but not started; ``None`` when the environment has no such application."""
        application = self.choices.applications.get(name) or self._offered.get(name)
        if name and application is None:
            return None
        made = self._made.get(name)
        if made is None and self.foreign is not None and not name:
            made = self._made[name] = ForeignSession(
                self.foreign, log=self._log, look=Ports(self._environ).look
            )
        if made is None:
            made = self._made[name] = Session(
                self.home / ".cache/galilean" / f"desktop-{name or '_'}",
                self.choices,
                application,
                environ=self._environ,
                title=f"{application.title} – {self._title}" if application else self._title,
                which=self._which,
                log=self._log,
            )
        if language and made.state in ("new", "down"):
            made.language = language
        return made

    def offer(self, name: str, title: str, command: str) -> None:
        """Have an application that may be opened alone besides those of the environment."""
        self._offered[name] = Application(name, title[:80], command)

    def sizes(self) -> list[str]:
        """Sizes that may be asked for besides the window's own; none without the program that sets them."""
        return list(SIZES) if self._which("xrandr") and self.foreign is None else []

    def end(self) -> None:
        """End all of them, at the end of the Jupyter server; what left its parent would live on."""
        for session in list(self._made.values()):
            session.end()
