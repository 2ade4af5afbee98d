"""Letters to people who hold a cluster on a machine that is to be taken out (CG-33).

In both languages: nobody has told the service which one a person reads. Dates are those of the site's zone.
Addresses are the hub's: a name that is a mail address is one, for the others the hub is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from galilean.errors import UserError, mark, render
from galilean.hubapi import HubAPI
from galilean.i18n import translations
from galilean.mail import send_soon
from galilean.settings import Settings
from services.machines.rules import Order
from services.machines.store import Holding

_SUBJECT = mark("{site}: the machine {machine} is taken out on {date}")
_TEXT = mark(
    "The machine {machine} is taken out on {date}. Until then go on as you like; then what you hold there "
    "goes back: {projects}. Everything in “work” stays, what runs and files elsewhere are lost."
)
_WHY = mark("The administrator says: {why}")
_AGAIN = mark("You can release it before, and run it again at once on another machine.")


@dataclass(frozen=True, kw_only=True)
class Letter:
    """What one person is told of one machine."""

    user: str
    order: Order
    projects: tuple[str, ...]


def letters(order: Order, found: Iterable[Holding]) -> list[Letter]:
    """One letter for each person, whatever they hold there."""
    projects: dict[str, list[str]] = {}
    for item in found:
        projects.setdefault(item.user, []).append(item.project_name)
    return [Letter(user=user, order=order, projects=tuple(names)) for user, names in projects.items()]


def in_words(letter: Letter, settings: Settings) -> tuple[str, str]:
    """Subject and text of a letter, the site's language first."""
    order = letter.order
    params: dict[str, Any] = {
        "site": settings.site.name,
        "machine": order.machine,
        "date": f"{order.due_at.astimezone(settings.site.zone):%Y-%m-%d %H:%M} ({settings.site.timezone})",
        "projects": ", ".join(letter.projects),
        "why": order.why,
    }
    messages = [_TEXT, *([_WHY] if order.why else []), _AGAIN]
    own = settings.site.language
    parts: list[str] = []
    for language in (own, *(name for name in ("en", "zh_CN") if name != own)):
        translate = translations(language).gettext
        parts.append("\n".join(render(message, params, translate) for message in messages))
    return render(_SUBJECT, params, translations(own).gettext), "\n\n".join(parts) + "\n"


class MailPost:
    """Sends letters by the site's mail server; without one it reaches nobody.

    Parameters
    ----------
    settings
        Of the site.
    hub
        Asked for addresses, with a token that may ``custom:galilean:addresses``.
    """

    def __init__(self, settings: Settings, hub: HubAPI) -> None:
        self._settings, self._hub = settings, hub

    async def __call__(self, post: list[Letter]) -> Collection[str]:
        """Send; the names of the people who were reached."""
        mail = self._settings.mail
        if not mail.host or not post:
            return ()
        addresses = await self._addresses([letter.user for letter in post])
        reached: list[str] = []
        for letter in post:
            address = addresses.get(letter.user)
            if not address:
                continue
            subject, text = in_words(letter, self._settings)
            if await send_soon(mail, to=[address], subject=subject, text=text):
                reached.append(letter.user)
        return reached

    async def _addresses(self, names: list[str]) -> dict[str, str]:
        known = {name: name for name in names if "@" in name}
        others = [name for name in names if name not in known]
        if others:
            try:
                answer = await self._hub.request("POST", "/galilean/addresses", json={"names": others})
                known |= {name: str(at) for name, at in answer.json().items() if at}
            except UserError as error:
                if error.status != 404:  # a hub whose accounts have no addresses
                    raise
        return known
