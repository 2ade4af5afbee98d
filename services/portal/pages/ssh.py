"""Keys for ssh on the account page, and the script that ssh needs, as one file (TI-19)."""

from __future__ import annotations

from typing import Any

from galilean.errors import mark
from galilean.web.handlers import BaseHandler
from services.portal import ssh
from services.portal.pages.person import PersonPage


class Keys(PersonPage):
    """Keep a key of one's own."""

    async def post(self) -> None:
        key = await ssh.add_key(
            self, self.get_body_argument("public_key", "", strip=True), self.get_body_argument("name", "")
        )
        self.done(mark("The key “{name}” opens your nodes now."), "galilean:people", name=key.name)


class Key(PersonPage):
    """Take a key away."""

    async def delete(self, key_id: str) -> None:
        await ssh.remove_key(self, key_id)
        self.done(mark("The key opens nothing any more."), "galilean:people")


class Script(BaseHandler):
    """The proxy command; the same for everybody, so a plain command can fetch it."""

    anonymous = True

    async def get(self) -> None:
        ssh.check_enabled(self.portal)
        self.set_header("Content-Type", "text/x-python; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{ssh.SCRIPT_NAME}"')
        self.set_header("Cache-Control", "no-cache")
        self.finish(ssh.script())

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.write_problem(self.problem(status_code, kwargs.get("exc_info", (None, None, None))[1]))


def routes() -> list[tuple[str, type[Any]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [
        (r"/account/ssh-keys", Keys),
        (r"/account/ssh-keys/([0-9A-Za-z]{1,40})", Key),
        (r"/ssh/galilean-ssh\.py", Script),
    ]
