"""Pages and one API call about accounts: sign in, sign up, change the password.

After signing up a person is signed in at once and lands in the portal, which says that the account waits
for a role. The API call ``PUT /hub/api/galilean/passwords/<name>`` is how ``galilean user add`` makes an
account while the hub runs; it needs ``admin:users``.
"""

from __future__ import annotations

from typing import Any

import bcrypt
from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.login import LoginHandler as HubLoginHandler
from jupyterhub.scopes import needs_scope
from tornado import web
from tornado.httputil import url_concat

from galilean.errors import UserError, mark
from galilean.web.language import translate

#: The OAuth client of tokens that no OAuth made.
OWN_CLIENT = "jupyterhub"
WRONG = mark("User name or password is wrong. Check both; capital letters count in the password.")


def end_sessions(db: Any, user: Any) -> None:
    """Sign a person out of every browser; tokens that they made, and those of running nodes, stay.

    Portal and nodes ask the hub about a session anew after half a minute and five minutes.
    """
    person = user.orm_user
    person.cookie_id = orm.new_token()  # what the hub's own cookie holds
    for token in list(person.api_tokens):
        if token.client_id != OWN_CLIENT:  # a browser's, by OAuth
            db.delete(token)
    for code in db.query(orm.OAuthCode).filter_by(user_id=person.id):
        db.delete(code)
    db.commit()


class LoginHandler(HubLoginHandler):
    """The hub's sign-in, told in the visitor's language."""

    def _render(self, login_error: str | None = None, username: str | None = None, **kwargs: Any) -> Any:
        if login_error == "Invalid username or password":
            login_error = translate(WRONG)
        return super()._render(login_error=login_error, username=username, **kwargs)


class AccountHandler(BaseHandler):
    """A page about accounts."""

    @property
    def accounts(self) -> Any:
        """Our authenticator."""
        return self.settings["authenticator"]


class SignUpHandler(AccountHandler):
    """``/hub/signup``."""

    def _check_open(self) -> None:
        if not self.accounts.enable_signup:
            raise web.HTTPError(404)

    async def get(self) -> None:
        self._check_open()
        if self.current_user:
            self.redirect(str(self.get_next_url(self.current_user)))
            return
        self.finish(await self._page())

    async def post(self) -> None:
        self._check_open()
        name = self.accounts.normalize_username(self.get_body_argument("username", "").strip())
        password = self.get_body_argument("signup_password", "", strip=False)
        again = self.get_body_argument("signup_password_confirmation", password, strip=False)
        email = self.get_body_argument("email", "")
        try:
            if password != again:
                raise UserError(400, mark("The two passwords differ."))
            await self.accounts.sign_up(self, name, password, email)
        except UserError as error:
            self.set_status(error.status)
            self.finish(await self._page(error=error.text(translate), username=name, email=email))
            return
        user = await self.login_user({"username": name, "password": password})
        self._jupyterhub_user = user
        self.redirect(str(self.get_next_url(user)))

    async def _page(self, error: str = "", username: str = "", email: str = "") -> str:
        following = {"next": self.get_argument("next", "")} if self.get_argument("next", "") else {}
        return await self.render_template(
            "signup.html",
            error=error,
            username=username,
            email=email,
            least=self.accounts.minimum_password_length,
            action=url_concat(self.hub.base_url + "signup", following),
            login_href=url_concat(self.settings["login_url"], following),
        )


class ChangePasswordHandler(AccountHandler):
    """``/hub/change-password``: one's own, with the present one."""

    @web.authenticated
    async def get(self) -> None:
        self.finish(await self._page())

    @web.authenticated
    async def post(self) -> None:
        name = self._person()
        try:
            if (
                await self.accounts.authenticate(
                    self,
                    {"username": name, "password": self.get_body_argument("old_password", "", strip=False)},
                )
                is None
            ):
                raise UserError(403, mark("The present password is wrong."))
            new = self.get_body_argument("new_password", "", strip=False)
            self.accounts.check_password(name, new)
            hashed = await self.accounts.in_thread(bcrypt.hashpw, new.encode(), bcrypt.gensalt())
            self.accounts.keep_password(name, hashed)
            end_sessions(self.db, self.current_user)
            self.set_hub_cookie(self.current_user)  # this browser stays
        except UserError as error:
            self.set_status(error.status)
            self.finish(await self._page(error=error.text(translate)))
            return
        self.finish(await self._page(done=True))

    def _person(self) -> str:
        user: Any = self.current_user
        return user.name

    async def _page(self, error: str = "", done: bool = False) -> str:
        return await self.render_template(
            "change-password.html",
            error=error,
            done=done,
            least=self.accounts.minimum_password_length,
            has_password=self.accounts.get_user(self._person()) is not None,
        )


class PasswordAPIHandler(APIHandler):
    """``PUT /hub/api/galilean/passwords/<name>`` with ``{"password": …}``: for administrators.

    With ``"replace": false`` an account that has a password keeps it, and the answer is 409.
    """

    @needs_scope("admin:users")
    async def put(self, name: str) -> None:
        accounts: Any = self.settings["authenticator"]
        body = self.get_json_body() or {}
        password = body.get("password") if isinstance(body, dict) else None
        if not isinstance(password, str) or not 0 < len(password.encode()) <= 72:
            raise web.HTTPError(400, "a password of 1 to 72 bytes is needed")
        user = self.find_user(accounts.normalize_username(name))
        if user is None:
            raise web.HTTPError(404, "no such user")
        if not body.get("replace", True) and accounts.get_user(user.name) is not None:
            raise web.HTTPError(409, "this account has a password already")
        hashed = await accounts.in_thread(bcrypt.hashpw, password.encode(), bcrypt.gensalt())
        accounts.keep_password(user.name, hashed)
        end_sessions(self.db, user)
        self.set_status(204)


HANDLERS: list[tuple[str, type]] = [
    (r"/login", LoginHandler),
    (r"/signup", SignUpHandler),
    (r"/change-password", ChangePasswordHandler),
    (r"/api/galilean/passwords/([^/]+)", PasswordAPIHandler),
]
