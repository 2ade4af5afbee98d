"""A small real web server that answers the few calls of a hub that the portal makes, OAuth included.

People, their groups and the scopes of their tokens are plain dictionaries that a test changes while it
runs. ``whoever`` is the person who is signed in at the hub when a browser comes by for OAuth.
"""

from __future__ import annotations

import json
import secrets
from typing import Any
from urllib.parse import unquote

from tornado.httpserver import HTTPServer
from tornado.httputil import url_concat
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from galilean.centre import RIGHTS
from galilean.web.visitor import RUN_SCOPE

PORTAL_TOKEN = "token-of-the-portal"


class FakeHub:
    """State of the hub, and what it was asked to do."""

    def __init__(self) -> None:
        self.people: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.codes: dict[str, str] = {}
        self.whoever = ""
        self.rights: dict[str, list[str]] = {}  # of roles that a test makes
        self.calls: list[tuple[str, str]] = []
        self.named: list[tuple[str, dict[str, Any]]] = []  # passwords, names and addresses that were set
        self.faults: dict[tuple[str, str], int] = {}  # status of the next such call of ours
        self.elsewhere = False  # people sign in by another system
        #: What is wrong with a claim on machines, and who was asked to look; ``None`` = Kubernetes is away.
        self.looks: dict[str, dict[str, str]] | None = {}
        self.looked: list[dict[str, Any]] = []
        self.refuse_servers = False
        self.away = False

    def add(self, name: str, *roles: str) -> None:
        self.people[name] = {
            "kind": "user",
            "name": name,
            "groups": [f"galilean:{role}" for role in roles],
            "created": "2026-11-20T08:00:00Z",
            "last_activity": "2026-11-22T12:00:00Z",
            "admin": False,
            "servers": {},
        }

    def scopes(self, name: str) -> list[str]:
        groups = self.people[name]["groups"]
        found = [f"read:users!user={name}", "access:services!service=portal"]
        if groups:
            found += [f"servers!user={name}", f"start:servers!user={name}", RUN_SCOPE]
        if "galilean:admin" in groups:
            found += ["list:users", "read:users", "groups", "servers"]
            found += [f"custom:galilean:{right}" for right in RIGHTS]
        for role, rights in self.rights.items():
            if f"galilean:{role}" in groups:
                found += ["list:users", "read:users", *(f"custom:galilean:{right}" for right in rights)]
        return found

    def token(self, name: str, scopes: list[str] | None = None) -> str:
        text = secrets.token_hex(16)
        self.tokens[text] = {"name": name, "scopes": self.scopes(name) if scopes is None else scopes}
        return text

    def start(self) -> int:
        """Listen on a free port, which is returned; needs a running loop."""
        sock, port = bind_unused_port()
        self.server = HTTPServer(self.application())
        self.server.add_socket(sock)
        return port

    def application(self) -> Application:
        routes: list[Any] = [
            (r"/hub/api/oauth2/authorize", _Authorize),
            (r"/hub/api/oauth2/token", _Token),
            (r"/hub/api/user", _Me),
            (r"/hub/api/users", _Users),
            (r"/hub/api/users/([^/]+)", _User),
            (r"/hub/api/users/([^/]+)/servers/([^/]+)", _Server),
            (r"/hub/api/groups/([^/]+)/users", _Group),
            (r"/hub/api/galilean/people", _OurPeople),
            (r"/hub/api/galilean/people/([^/]+)", _OurPerson),
            (r"/hub/api/galilean/people/([^/]+)/(block|password|names)", _OurPersonsState),
            (r"/hub/api/galilean/roles", _OurRoles),
            (r"/hub/api/galilean/port-shares", _PortShares),
            (r"/hub/api/galilean/look", _OurLook),
            (r"/hub/api/users/([^/]+)/tokens", _OurTokens),
            (r"/hub/.*", _Page),
            (r"/user/.*", _Page),
        ]
        return Application(routes, hub=self, log_function=lambda handler: None)


class _Base(RequestHandler):
    @property
    def hub(self) -> FakeHub:
        return self.settings["hub"]

    def prepare(self) -> None:
        if self.hub.away:
            self.send_error(503)

    def check_xsrf_cookie(self) -> None:
        pass

    def who(self) -> dict[str, Any] | None:
        token = self.request.headers.get("Authorization", "").removeprefix("token ")
        if token == PORTAL_TOKEN:
            return {"name": "portal", "scopes": ["list:users", "read:users"]}
        return self.hub.tokens.get(token)

    def refuse(self, status: int, message: str) -> None:
        self.set_status(status)
        self.finish({"status": status, "message": message})

    def write_json(self, value: Any) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value))


class _PortShares(_Base):
    def post(self) -> None:
        self.hub.calls.append(("POST", "/galilean/port-shares"))
        self.set_status(204)


class _Authorize(_Base):
    def get(self) -> None:
        code = secrets.token_hex(8)
        self.hub.codes[code] = self.hub.whoever
        self.hub.calls.append(("AUTHORIZE", self.hub.whoever))
        target = self.get_argument("redirect_uri")
        self.redirect(url_concat(target, {"code": code, "state": self.get_argument("state", "")}))


class _Token(_Base):
    def post(self) -> None:
        name = self.hub.codes.pop(self.get_argument("code"))
        self.write_json({"access_token": self.hub.token(name), "token_type": "Bearer"})


class _Me(_Base):
    def get(self) -> None:
        who = self.who()
        if who is None or who["name"] not in self.hub.people:
            self.refuse(403, "Forbidden")
            return
        self.write_json({**self.hub.people[who["name"]], "scopes": who["scopes"]})


class _Users(_Base):
    def get(self) -> None:
        who = self.who()
        if who is None or "list:users" not in who["scopes"]:
            self.refuse(403, "Action is not authorized with current scopes; requires any of [list:users]")
            return
        offset, limit = int(self.get_argument("offset", "0")), int(self.get_argument("limit", "50"))
        self.write_json(list(self.hub.people.values())[offset : offset + limit])


class _User(_Base):
    def get(self, name: str) -> None:
        self.hub.calls.append(("USER", name))
        person = self.hub.people.get(name)
        if self.who() is None or person is None:
            self.refuse(404, "No such user")
            return
        self.write_json(person)


class _Server(_Base):
    def delete(self, name: str, server: str) -> None:
        who = self.who()
        allowed = {"servers", f"servers!user={name}"}
        if who is None or not allowed & set(who["scopes"]):
            self.refuse(403, "Action is not authorized with current scopes; requires any of [delete:servers]")
            return
        self.hub.calls.append(("DELETE", f"{name}/{server}"))
        self.set_status(202)
        self.finish()

    def post(self, name: str, server: str) -> None:
        self.hub.calls.append(("POST", f"{name}/{server}"))
        self.set_status(202)
        self.finish()


class _Group(_Base):
    def post(self, group: str) -> None:
        self._change(unquote(group), add=True)

    def delete(self, group: str) -> None:
        self._change(unquote(group), add=False)

    def _change(self, group: str, *, add: bool) -> None:
        who = self.who()
        if who is None or "groups" not in who["scopes"]:
            self.refuse(403, "Action is not authorized with current scopes; requires any of [groups]")
            return
        for name in json.loads(self.request.body)["users"]:
            groups = self.hub.people[name]["groups"]
            if add and group not in groups:
                groups.append(group)
            if not add and group in groups:
                groups.remove(group)
        self.hub.calls.append(("GROUP", group))
        self.write_json({"name": group})


class _Page(_Base):
    def get(self) -> None:
        self.finish(f"<!doctype html><title>hub</title><p>{self.request.path}")


class _Ours(_Base):
    """Calls of ours beside the hub's; who gives what to whom is tested at the real hub."""

    def allowed(self, name: str = "") -> bool:
        who = self.who()
        scopes = who["scopes"] if who else ()
        if not {"custom:galilean:people:manage", "custom:galilean:groups:manage"} & set(scopes):
            self.refuse(403, "Action is not authorized with current scopes")
            return False
        if name and name not in self.hub.people:
            self.refuse(404, f"There is no account “{name}”.")
            return False
        call = (self.request.method or "", self.request.path)
        self.hub.calls.append(call)
        if call in self.hub.faults:
            self.refuse(self.hub.faults.pop(call), "Not now.")
            return False
        return True

    def body(self) -> dict[str, Any]:
        return json.loads(self.request.body or b"{}")


class _OurPeople(_Ours):
    def post(self) -> None:
        if not self.allowed():
            return
        body = self.body()
        if self.hub.elsewhere and "password" in body:
            self.set_status(409)
            self.finish(
                {"status": 409, "message": "Accounts come from another system.", "reason": "elsewhere"}
            )
            return
        if body["name"] in self.hub.people:
            self.refuse(409, f"There is an account “{body['name']}” already.")
            return
        self.hub.add(body["name"])
        self.hub.people[body["name"]]["groups"] = list(body["groups"])
        self.hub.people[body["name"]]["last_activity"] = None
        self.set_status(201)
        self.write_json({"name": body["name"], "groups": body["groups"]})


class _OurPerson(_Ours):
    def patch(self, name: str) -> None:
        name = unquote(name)
        if not self.allowed(name):
            return
        groups, body = self.hub.people[name]["groups"], self.body()
        roles = {"student", "researcher", "teacher", "admin", *self.hub.rights}
        if unknown := [g for g in body["add"] if g.startswith("galilean:") and g[9:] not in roles]:
            self.refuse(404, f"There is no role “{unknown[0]}”.")
            return
        who = self.who()
        if "galilean:admin" in body["remove"] and who and who["name"] == name:
            self.refuse(409, "You cannot take the administrator's role from yourself.")
            return
        added = [group for group in body["add"] if group not in groups]
        removed = [group for group in body["remove"] if group in groups]
        self.hub.people[name]["groups"] = [g for g in groups if g not in removed] + added
        self.write_json({"name": name, "added": added, "removed": removed})

    def delete(self, name: str) -> None:
        if self.allowed(unquote(name)):
            del self.hub.people[unquote(name)]
            self.set_status(204)


class _OurPersonsState(_Ours):
    def post(self, name: str, what: str) -> None:
        if self.allowed(unquote(name)):
            self.hub.people[unquote(name)]["groups"].append("galilean-blocked")
            self.write_json({"name": name, "clusters": 0})

    def delete(self, name: str, what: str) -> None:
        if self.allowed(unquote(name)):
            self.hub.people[unquote(name)]["groups"].remove("galilean-blocked")
            self.write_json({"name": name})

    def put(self, name: str, what: str) -> None:
        who = self.who()
        if (what == "names" and who and who["name"] == unquote(name)) or self.allowed(unquote(name)):
            self.hub.named.append((unquote(name), self.body()))
            self.set_status(204)


class _OurRoles(_Base):
    def post(self) -> None:
        self.hub.calls.append(("ROLES", ""))
        self.write_json({"version": 1})


class _OurLook(_Base):
    def post(self) -> None:
        asked = json.loads(self.request.body)
        self.hub.looked.append(asked)
        if self.hub.looks is None:
            self.refuse(503, "Kubernetes does not answer just now")
            return
        there = {"problem": "", "why": ""}
        self.write_json({machine: self.hub.looks.get(machine, there) for machine in asked["machines"]})


class _OurTokens(_Base):
    def get(self, name: str) -> None:
        self.write_json({"api_tokens": []})

    def post(self, name: str) -> None:
        self.write_json({"token": "0" * 32})
