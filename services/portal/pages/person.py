"""A person's own page (AP-3): account for oneself, ``/people/<name>`` for administrators.

Names, roles and groups, what one may hold and what is left, tokens, machine time. Tokens are the hub's and
made with the person's own right; administrators see that there are some and may take them away.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from galilean.errors import UserError, mark
from galilean.web.visitor import RUN_SCOPE, scope_of
from services.portal import people, ssh
from services.portal.api.usage import usage_for
from services.portal.my_limits import given_to, limits_and_rest, lines_of
from services.portal.pages.people import moment
from services.portal.pages.roles import AdminPage
from services.portal.quotas import models_of, pools_of
from services.portal.rights_said import RIGHT_WORDS

LIFES = {"7": 7, "30": 30, "90": 90, "365": 365, "0": 0}


class PersonPage(AdminPage):
    """What the handlers share: whose page it is, and whether the visitor may."""

    def whose(self, name: str | None) -> str:
        found = name or self.person.name
        if found != self.person.name and not self.person.may("people:manage"):
            raise UserError(403, mark("This page is for administrators."))
        return found

    def here(self, name: str) -> str:
        if name == self.person.name:
            return f"{self.portal.prefix}account"
        return f"{self.portal.prefix}admin/people/{quote(name)}"


class PersonOverview(PersonPage):
    """The page."""

    async def get(self, name: str | None = None) -> None:
        name = self.whose(name)
        row = await people.one(self, name)
        known = await self.portal.rights.get()
        own = name == self.person.name
        now = self.portal.clock()
        first = now.astimezone(self.portal.settings.site.zone).replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        )
        used: list[Any] = []
        if own or self.person.may("usage:read-all"):
            used = await usage_for(self.portal, self.person, by="project", user=name, start=first)
        mine = await limits_and_rest(self.portal, row.name, row.account.effective)
        giveable = {
            role: title
            for role, title in (await self.role_titles()).items()
            if self.person.admin or (role != "admin" and known.roles[role].rights <= self.person.rights)
        }
        values: dict[str, Any] = {
            "row": row,
            "own": own,
            "manages": self.person.may("people:manage"),
            "here": self.here(name),
            "root": f"{self.portal.prefix}admin/people",
            "titles": await self.role_titles(),
            "giveable": giveable,
            "groups": known.groups,
            "rights": sorted(known.rights_of(row.account.effective)),
            "words": RIGHT_WORDS,
            "tokens": await self.tokens(name),
            "used": used,
            "may_hold": lines_of(
                mine,
                pools_of(self.portal),
                models_of(self.portal),
                today=now.astimezone(self.portal.settings.site.zone).date(),
            ),
            "exceptions": given_to(mine, now, self.portal.settings.site.zone),
            "said": lambda told: told.text(self.translate) if told else "",
            "moment": moment,
            "person_name": row.name,
            "ssh": None,
            "object_stores": own and self.portal.settings.object_stores.enabled and self.person.has_role,
        }
        if own and self.portal.settings.ssh.enabled:
            values |= {"ssh": ssh.ready(self), "ssh_keys": await ssh.keys_of(self.portal, name)}
        page = (
            "account.html" if own and not self.request.path.startswith(f"{self.portal.prefix}admin/") else ""
        )
        await self.answer(page or "admin_person.html", "person_body.html", **values)

    async def tokens(self, name: str) -> list[dict[str, Any]]:
        """Tokens that people made (not those of browsers and nodes); empty where one may not see them."""
        try:
            answer = await self.hub_as_visitor().request("GET", f"/users/{quote(name, safe='')}/tokens")
        except UserError:
            return []
        return [
            token
            for token in answer.json().get("api_tokens", [])
            if not token.get("oauth_client") or token.get("oauth_client") == "JupyterHub"
            if not any(scope.startswith("access:servers!server=") for scope in token.get("scopes", ()))
        ]


class Names(PersonPage):
    """How somebody is called, and their mail address."""

    async def post(self, name: str | None = None) -> None:
        name = self.whose(name)
        full_name = " ".join(self.get_body_argument("full_name", "").split())[:255]
        mail = self.get_body_argument("mail", "").strip()[:128]
        await people.rename(self, name, full_name=full_name, mail=mail)
        self.done(mark("Saved."), "galilean:people")


class Tokens(PersonPage):
    """Make a token for oneself, shown once."""

    async def post(self) -> None:
        days = LIFES.get(self.get_body_argument("days", "30"))
        if days is None:
            raise UserError(400, mark("A token ends after 7, 30, 90 or 365 days, or never."))
        body: dict[str, Any] = {"note": self.get_body_argument("note", "").strip()[:200] or "portal"}
        if days:
            body["expires_in"] = days * 86400
        kind = self.get_body_argument("may", "all")
        name = self.person.name
        look = [f"read:users!user={name}", "access:services!service=portal"]
        look += [
            scope_of(right) for right in sorted(self.person.rights) if right.endswith((":read", ":read-all"))
        ]
        if kind == "look":
            body["scopes"] = look
        elif kind == "run":
            body["scopes"] = [*look[:2], f"servers!user={name}", f"access:servers!user={name}", RUN_SCOPE]
        elif kind == "ssh":
            body["scopes"] = [f"access:servers!user={name}"]
        path = f"/users/{quote(name, safe='')}/tokens"
        made = (await self.hub_as_visitor().request("POST", path, json=body)).json()
        self.set_header("HX-Trigger", "galilean:people")
        await self.render_fragment("token_made.html", token=made["token"], until=_until(days))


def _until(days: int) -> datetime | None:
    return datetime.now(UTC) + timedelta(days=days) if days else None


class Token(PersonPage):
    """Take a token away."""

    async def delete(self, name: str, token_id: str) -> None:
        name = self.whose(name)
        path = f"/users/{quote(name, safe='')}/tokens/{quote(token_id, safe='')}"
        signed = self.portal.hub.signed(self.address, path)
        await self.hub_as_visitor().request("DELETE", path, headers=signed)
        self.done(mark("The token no longer works."), "galilean:people")


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix; after those of :mod:`…pages.people`."""
    return [
        (r"/account", PersonOverview),
        (r"/account/names", Names),
        (r"/account/tokens", Tokens),
        (r"/people/([^/]+)/tokens/([^/]+)", Token),
        (r"/admin/people/([^/]+)/names", Names),
        (r"/admin/people/([^/]+)", PersonOverview),
        (r"/people/([^/]+)", PersonOverview),
    ]
