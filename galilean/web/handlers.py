"""Base classes of every handler: who is there, what they may do, in which language, and how errors look.

Order of a request: language → sign-in (OAuth cookie or token, without blocking the loop) → live rights →
XSRF for whatever changes state → the handler. A page without sign-in is sent to the hub and comes back;
a script's request is answered 401. Two cookies of one minute break circles: one counts sign-ins that did
not stick, the other allows one silent renewal of a token that was granted before the role was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn, ParamSpec, TypeVar

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from pydantic import BaseModel, ValidationError
from tornado.escape import json_encode
from tornado.web import HTTPError, RequestHandler

from galilean.errors import UserError, mark
from galilean.hubapi import HubAPI
from galilean.rights import BLOCKED
from galilean.web import csp, language
from galilean.web.context import Portal
from galilean.web.jinja import shared_domain
from galilean.web.problems import MEDIA_TYPE, BodyError, Problem, plain, problem_of
from galilean.web.visitor import RUN_SCOPE, Visitor, node_of

M = TypeVar("M", bound=BaseModel)
P = ParamSpec("P")
R = TypeVar("R")

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
RENEWED, SIGN_INS, SIGN_INS_MOST = "galilean-renewed", "galilean-sign-ins", 4


class VisitorHub(HubAPI):
    """The hub with the visitor's token; a refusal that the groups do not explain asks for a new sign-in."""

    visitor: Visitor

    async def request(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            return await super().request(method, path, **kwargs)
        except UserError as error:
            if error.status == 403 and "current scopes" in str(error) and not self.visitor.by_token:
                raise UserError(
                    403,
                    mark("Your rights have changed since you signed in. Try once more."),
                    reason="sign-in-again",
                ) from error
            raise


class BaseHandler(HubOAuthenticated, RequestHandler):
    """Sign-in, rights, errors; see :class:`PageHandler` and :class:`APIHandler`."""

    #: Whether somebody who has not signed in may come in (``self.person`` is then ``None``).
    anonymous = False
    #: Whether a node's token may come in.
    nodes_enter = False
    #: The right without which nobody may enter, empty = any signed-in person; several = one of them is enough.
    right: str | tuple[str, ...] = ""

    #: Whose disk :meth:`in_files` works on, empty = none that hangs alone.
    volume = ""

    person: Visitor
    nonce = ""

    @property
    def portal(self) -> Portal:
        """Settings, database, hub, clock, templates."""
        return self.application.settings["portal"]

    @property
    def hub_auth(self) -> Any:  # type: ignore[override]
        return self.portal.oauth

    @property
    def language(self) -> str:
        """``en`` or ``zh_CN``."""
        return language.current.get()

    def translate(self, message: str) -> str:
        """``message`` in the visitor's language."""
        return language.translate(message)

    @property
    def is_fragment(self) -> bool:
        """Whether a part of a page is asked for by a script rather than a page by a browser."""
        return "HX-Request" in self.request.headers

    def set_default_headers(self) -> None:
        self.nonce = csp.new_nonce()
        self.set_header("Content-Security-Policy", csp.page_policy(self.nonce, self.portal.hub_host))
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.set_header("Cache-Control", "private, no-store")
        self.clear_header("Server")

    async def prepare(self) -> None:
        language.current.set(language.language_of(self.request, default=self.portal.settings.site.language))
        await self._identify()
        if self._finished:
            return
        if self.person is not None:
            if self.person.node and not self.nodes_enter:
                raise UserError(403, mark("A node may not do this, only its owner."))
            if self.request.method in WRITES and not self.person.node and not await self._token_may_change():
                raise UserError(
                    403,
                    mark("This token may look, not change. Make one with the scope {scope}."),
                    reason="scope",
                    scope=RUN_SCOPE,
                )
            wanted = (self.right,) if isinstance(self.right, str) else self.right
            if any(wanted) and not any(self.person.may(right) for right in wanted):
                raise UserError(403, mark("This page is for administrators."))

    async def _identify(self) -> None:
        self.person = None  # type: ignore[assignment]
        try:
            model = await self.hub_auth.get_user(self, sync=False)
            if model:
                model = self.check_hub_user(model)
        except UserNotAllowed as error:
            self._hub_auth_user_cache = None
            raise UserError(403, mark("Your account may not use this portal.")) from error
        except HTTPError as error:
            self._hub_auth_user_cache = None
            if error.status_code < 500:
                raise
            raise UserError(
                503,
                mark("The hub does not answer just now. Running clusters go on; try again in a few seconds."),
            ) from error
        self._hub_auth_user_cache = model
        # A token that nobody knows (any more) is no page that is out of date.
        unknown = not model and self.hub_auth.get_token(self, in_cookie=False)
        if self.request.method in WRITES and not self.anonymous and not unknown:
            self._check_xsrf()
        if model:
            self.person = await self._visitor(model)
        elif not self.anonymous:
            self.sign_in()

    def _check_xsrf(self) -> None:
        try:
            self.check_xsrf_cookie()
        except HTTPError as error:
            if self.hub_auth.get_token(self):
                raise UserError(
                    403, mark("This page is out of date. Load it again, then try once more."), reason="xsrf"
                ) from error

    async def _visitor(self, model: dict[str, Any]) -> Visitor:
        name, scopes = model["name"], frozenset(model.get("scopes", ()))
        by_token = bool(getattr(self, "_token_authenticated", False))
        node = node_of(model) if by_token else None
        if model.get("kind") != "user" or node:
            return Visitor(name=name, scopes=scopes, by_token=by_token, node=node)
        groups = await self.portal.people.groups(name)
        if BLOCKED in groups:
            raise UserError(
                403,
                mark("Your account is blocked. Ask the administrators; your files are where they were."),
                reason="blocked",
            )
        rights = await self.portal.rights.get()
        roles = rights.roles_of(groups)
        return Visitor(
            name=name,
            groups=groups,
            roles=roles,
            given=rights.rights_of(roles),
            scopes=scopes,
            by_token=by_token,
        )

    async def _token_may_change(self) -> bool:
        """Whether a token carries the scope for changes; whoever waits for a role is told that instead."""
        if self.person.may_change or not self.person.has_role:
            return True
        # What is known of a token is half a minute old: the role may have been given since.
        model = await self.hub_auth.user_for_token(self.hub_auth.get_token(self), use_cache=False, sync=False)
        if model:
            self.person = await self._visitor(model)
        return self.person.may_change

    @property
    def address(self) -> str:
        """Where the request came from, for the audit log: what our own proxy noted last.

        Never ``remote_ip``, for which ``X-Real-Ip`` would do, and that is anybody's to send.
        """
        noted = ",".join(self.request.headers.get_list("X-Forwarded-For")).rpartition(",")[2].strip()
        return (noted or self.request.remote_ip or "")[:64]

    def get_current_user(self) -> Any:
        """JupyterHub's model of the visitor; pages use :attr:`person`."""
        return getattr(self, "_hub_auth_user_cache", None)

    def sign_in(self) -> None:
        """Answer somebody who has not signed in."""
        raise UserError(401, mark("Sign in first."), reason="sign-in")

    def hub_as_visitor(self) -> HubAPI:
        """The hub with the visitor's own token: the hub's rules decide."""
        hub = VisitorHub(self.portal.hub.api_url, self.hub_auth.get_token(self), self.portal.hub._client)
        hub.visitor = self.person
        return hub

    async def in_files(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run file work in the threads of :attr:`volume`, however long it takes."""
        return await self.portal.files.run(self.volume, function, *args, **kwargs)

    async def ask_files(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same for what only looks: a volume that does not answer in time is said to be so (503)."""
        return await self.portal.files.ask(self.volume, function, *args, **kwargs)

    def need_role(self) -> None:
        """Refuse somebody who waits for a role.

        Raises
        ------
        UserError
            403 that says what happens next.
        """
        if not self.person.has_role:
            raise UserError(
                403, mark("Your account waits for a role. An administrator has been told; nothing is lost.")
            )

    def problem(self, status: int, error: BaseException | None) -> Problem:
        """What is told of an error, logged where it is our fault."""
        return problem_of(error, status, self.translate, where=f"{self.request.method} {self.request.path}")

    def write_problem(self, problem: Problem) -> None:
        self.set_status(problem.status, problem.title)
        self.set_header("Content-Type", MEDIA_TYPE)
        self.finish(json_encode(plain(problem)))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Errors for people are no errors of ours; the others are logged with their id by ``problem_of``."""

    def redirect_home(self) -> None:
        self.redirect(self.portal.prefix)


class PageHandler(BaseHandler):
    """A page, or a part of one that htmx asks for."""

    async def prepare(self) -> None:
        await super().prepare()
        if self._finished:
            return
        if self.person is not None and self.get_cookie(SIGN_INS):
            self.clear_cookie(SIGN_INS, path=self.portal.prefix)
        if (
            self.person is not None
            and self.person.token_is_stale
            and self.request.method == "GET"
            and not self.is_fragment
        ):
            self.renew_sign_in()

    def sign_in(self) -> None:
        if self.is_fragment or self.request.method != "GET":
            super().sign_in()
        tries = int(self.get_cookie(SIGN_INS) or "0") if (self.get_cookie(SIGN_INS) or "0").isdigit() else 0
        if tries >= SIGN_INS_MOST:
            self.clear_cookie(SIGN_INS, path=self.portal.prefix)
            raise UserError(
                401,
                mark(
                    "Signing in goes round in a circle. Allow cookies for this site, then load the page again."
                ),
                reason="sign-in-circle",
            )
        self.set_cookie(
            SIGN_INS, str(tries + 1), path=self.portal.prefix, max_age=60, httponly=True, samesite="Lax"
        )
        self.redirect(self.get_login_url())

    def renew_sign_in(self) -> bool:
        """Repeat the silent OAuth once a minute at most; ``False`` when it was just done."""
        if self.get_cookie(RENEWED):
            return False
        self.set_cookie(RENEWED, "1", path=self.portal.prefix, max_age=60, httponly=True, samesite="Lax")
        self.hub_auth.clear_cookie(self)
        self.redirect(self.get_login_url())
        return True

    def base_namespace(self) -> dict[str, Any]:
        """What the hub's ``page.html`` and ours expect."""
        # An address that cannot be read is refused before anybody is asked who they are.
        portal, person = self.portal, getattr(self, "person", None)
        xsrf = bytes(self.xsrf_token or b"").decode("ascii")
        user = None
        if person is not None:
            user = SimpleNamespace(name=person.name, json_escaped_name=json_encode(person.name)[1:-1])
        scopes = set(person.scopes) if person is not None else set()
        if person is not None and person.admin:
            scopes.add("admin-ui")
        return {
            "handler": self,
            "visitor": person,
            "csp_nonce": self.nonce,
            "portal_url": portal.prefix,
            "assets_prefix": portal.prefix + "static/",
            "site_name": portal.settings.site.name,
            "help_url": portal.settings.site.help_url,
            "shared_domain": shared_domain(portal.settings),
            "language": self.language,
            "now": portal.clock(),
            "path": self.request.path,
            "nav": [],
            "meter": None,
            # what the hub's template asks for
            "base_url": portal.hub_url,
            "prefix": portal.settings.web.base_url,
            "user": user,
            "login_url": portal.hub_url + "login",
            "logout_url": portal.prefix + "sign-out",
            "logo_url": portal.prefix,
            "static_url": self._hub_static,
            "version_hash": "",
            "services": [],
            "parsed_scopes": scopes,
            "expanded_scopes": scopes,
            "xsrf": xsrf,
            "xsrf_token": xsrf,
            "no_spawner_check": True,
            "admin_access": False,
            "announcement": "",
        }

    def _hub_static(self, name: str, include_version: bool = True) -> str:
        prefix = self.portal.prefix + "static/"
        return self.portal.assets.url(prefix, "hub/" + name) if include_version else f"{prefix}hub/{name}"

    async def render_page(self, template: str, **namespace: Any) -> None:
        """Answer with a whole page: ``template`` extends ``page.html``."""
        values = self.base_namespace()
        if self.person is not None and not self.person.node:
            for extra in self.portal.extras:
                values.update(await extra(self))
        values.update(namespace)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(self.portal.jinja.get_template(template).render(values))

    async def render_fragment(self, template: str, **namespace: Any) -> None:
        """Answer with a part of a page, without the frame."""
        values = {**self.base_namespace(), **namespace}
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(self.portal.jinja.get_template(template).render(values))

    def toast(self, message: str, *, tone: str = "ok") -> None:
        """Have the browser show one line after this answer (htmx requests)."""
        self.set_header("HX-Trigger", json.dumps({"galilean:toast": {"text": message, "tone": tone}}))

    def answer_events(self, events: dict[str, Any]) -> None:
        """Answer an htmx request with events for the page and nothing to put into it.

        Parameters
        ----------
        events
            Such as ``{"galilean:toast": {"text": …}, "galilean:close-dialog": {}, "galilean:clusters": {}}``.
        """
        self.set_header("HX-Reswap", "none")
        self.set_header("HX-Trigger", json.dumps(events))  # ASCII: it is a header
        self.finish("")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        problem = self.problem(status_code, error)
        if problem.reason == "sign-in-again" and not self.get_cookie(RENEWED):
            self.set_cookie(RENEWED, "1", path=self.portal.prefix, max_age=60, httponly=True, samesite="Lax")
            self.hub_auth.clear_cookie(self)
        if self.is_fragment or "application/json" in self.request.headers.get("Accept", ""):
            self.write_problem(problem)
            return
        self.set_status(problem.status, problem.title)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        values = self.base_namespace()
        if self.person is not None and not self.person.node and problem.status < 500:
            # What the frame needs from the database comes later, by itself: an error is never hidden by another.
            values |= {"search_url": self.portal.prefix + "search", "late_meter": True}
        self.finish(self.portal.jinja.get_template("error_page.html").render(values, problem=problem))


class APIHandler(BaseHandler):
    """An answer in JSON."""

    async def prepare(self) -> None:
        await super().prepare()

    def body(self, model: type[M]) -> M:
        """The request's JSON as ``model``.

        Raises
        ------
        UserError
            415 when it is not sent as JSON; 400 when it does not fit, naming each field.
        """
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UserError(415, mark("The request must be JSON."))
        try:
            return model.model_validate_json(self.request.body)
        except ValidationError as error:
            raise BodyError(error) from error

    def query(self, name: str, default: str = "") -> str:
        """One value of the query, stripped."""
        return self.get_query_argument(name, default).strip()

    def limit(self, default: int = 50, most: int = 200) -> int:
        """``?limit=``, between 1 and ``most``."""
        text = self.query("limit") or str(default)
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise UserError(400, mark("“limit” takes a whole number from 1 to {most}."), most=most)
        return int(text)

    def write_json(self, model: Any, status: int = 200) -> None:
        """Answer with a model, or with lists and dictionaries of models."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json_encode(plain(model)))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.write_problem(self.problem(status_code, kwargs.get("exc_info", (None, None, None))[1]))


class CallbackHandler(PageHandler, HubOAuthCallbackHandler):
    """Where the hub sends people back after sign-in."""

    anonymous = True

    async def prepare(self) -> None:
        await BaseHandler.prepare(self)

    async def get(self) -> None:
        await HubOAuthCallbackHandler.get(self)


class NotFoundPage(PageHandler):
    """Every address that no room has."""

    async def _nothing(self) -> NoReturn:
        raise UserError(404, mark("There is no such page."))

    get = post = put = patch = delete = _nothing  # type: ignore[assignment]


class NotFoundAPI(APIHandler):
    """Every address of the API that no room has."""

    anonymous = True

    async def _nothing(self) -> NoReturn:
        raise UserError(404, mark("There is nothing at this address of the API."))

    get = post = put = patch = delete = _nothing  # type: ignore[assignment]
