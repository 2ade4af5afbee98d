"""Everything an administrator does in a page is done by the API, too, and leaves a line in the audit log (BX-13).

What belongs together stands in :mod:`tests.portal.administered`; here it is compared with the pages and calls that
there are, and each call is made: refused to somebody without the right, who leaves no line, then by an administrator.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from jupyterhub.apihandlers import default_handlers
from sqlalchemy import select
from tornado.web import RequestHandler

from extensions.imagebuilder import store
from extensions.imagebuilder.entries import Actor
from galilean.cli import build_app
from galilean.tables import audit_log
from galilean.web.handlers import NotFoundAPI
from hub_config.decided import Document
from services.portal.api.handlers import ROUTES
from services.portal.api.openapi import OPERATIONS
from services.portal.app import ROOMS
from tests.imagebuilder.test_store import NOW, version
from tests.machines.conftest import MakePark, make_park  # noqa: F401 - a fixture
from tests.machines.machines import machine
from tests.portal.administered import CALLS, CHANGE_NOTHING, OWN, PAGES, SHOW
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_archives import brought, settled
from tests.portal.test_gallery import png
from tests.portal.test_image_places import FIRST
from tests.portal.test_image_places import site as docker  # noqa: F401 - a fixture
from tests.web.site import Site

HERE = Path(__file__).parents[2]
WRITES = ("post", "put", "patch", "delete")
WALKS = ("decisions", "imports", "things", "machines", "images")


def changing(handler: type[RequestHandler]) -> list[str]:
    """The methods of a handler that may change something."""
    return [name for name in WRITES if getattr(handler, name) is not getattr(RequestHandler, name)]


def page_handlers() -> dict[str, type[Any]]:
    """``module.Class.method`` of all of the portal's that are not the API's."""
    found: dict[str, type[Any]] = {}
    for room in ROOMS:
        if room != "services.portal.api.handlers":
            for _, handler in import_module(room).routes():
                stem = f"{handler.__module__.rpartition('.')[2]}.{handler.__name__}"
                found.update({f"{stem}.{method}": handler for method in changing(handler)})
    return found


def rights(handler: Any) -> set[str]:
    """Those of which any one opens it; none = it asks by itself, or anybody may."""
    right = handler.right
    return set(filter(None, (right,) if isinstance(right, str) else right))


def answers(path: str) -> Any:
    """The handler of an address of the API."""
    filled = re.sub(r"\{(number|rank|port)\}", "1", path.replace("{id}", "0" * 26))
    filled = "/api/v1" + re.sub(r"\{\w+\}", "x", filled)
    return next(handler for pattern, handler in ROUTES if re.fullmatch(pattern, filled))


def of_ours(call: str) -> bool:
    return not call.startswith("hub ")


# ------------------------------------------------------------------------------------- what there is


def test_every_page_that_changes_something_says_for_whom_it_is_and_by_which_call_it_is_done_too() -> None:
    there = page_handlers()
    said = [*PAGES, *SHOW, *OWN]
    assert sorted(said) == sorted(there), "say it in tests/portal/administered.py"
    assert [page for page in OWN if rights(there[page])] == [], "these are for administrators"
    assert {call for calls in PAGES.values() for call in calls} <= set(CALLS)
    assert all(PAGES.values())


def test_every_call_that_needs_a_right_says_its_lines_in_the_audit_log() -> None:
    needing = {
        f"{one.method.upper()} {one.path}"
        for one in OPERATIONS
        if one.method != "get" and rights(answers(one.path))
    }
    assert needing - set(CALLS) == set(CHANGE_NOTHING)


def test_every_call_that_is_named_is_there_and_described() -> None:
    described = {f"{one.method.upper()} {one.path}" for one in OPERATIONS}
    for call in CALLS:
        method, path = call.removeprefix("hub ").split()
        if of_ours(call):
            assert call in described
            handler = answers(path)
            assert handler is not NotFoundAPI
        else:
            filled = "/api" + re.sub(r"\{\w+\}", "x", path)
            handler = next(
                handler for pattern, handler, *_ in default_handlers if re.fullmatch(pattern, filled)
            )
        assert method.lower() in changing(handler), call


def test_whom_a_right_opens_a_page_may_do_the_same_by_the_api() -> None:
    there = page_handlers()
    for page, calls in PAGES.items():
        for call in filter(of_ours, calls):
            needed = rights(answers(call.split()[1]))
            assert not needed or rights(there[page]) <= needed, (page, call)


def test_every_section_of_a_file_and_every_command_that_is_named_is_there() -> None:
    def names(command: Any, before: str = "") -> Iterator[str]:
        for name, one in getattr(command, "commands", {}).items():
            yield before + name
            yield from names(one, f"{before}{name} ")

    there = {f"file {name}" for name in Document.model_fields} | set(
        names(typer.main.get_command(build_app()))
    )
    assert {way for call in CALLS.values() for way in call.also} <= there


def test_every_call_is_made_by_a_test_that_looks_for_its_lines() -> None:
    for name, call in CALLS.items():
        if call.walk not in WALKS:
            text = (HERE / call.walk).read_text()
            assert all(f'"{action}"' in text for action in call.audit), name


# --------------------------------------------------------------------------------- each call, once


class Walk:
    """Makes calls as somebody without a right, then as an administrator, and looks into the audit log."""

    def __init__(
        self, site: Site, name: str, admin: httpx.Client, other: httpx.Client, *, by: str = "root"
    ) -> None:
        self.site, self.name, self.admin, self.other, self.by = site, name, admin, other, by
        self.seen: dict[str, set[str]] = {}

    def lines(self) -> list[Any]:
        with self.site.portal.db.read() as conn:
            return list(conn.execute(select(audit_log).order_by(audit_log.c.id)))

    def __call__(self, call: str, path: str = "", *, wait: bool = False, **sent: Any) -> httpx.Response:
        """Make a call at an address (left out: its own)."""
        (method, own), before = call.split(), len(self.lines())
        refused = self.other.request(method, path or own, **sent)
        assert refused.status_code in (403, 404), (call, refused.text)
        assert len(self.lines()) == before, f"{call} was refused and has a line"
        answer = self.admin.request(method, path or own, **sent)
        assert answer.status_code < 300, (call, answer.text)
        for _ in range(600 if wait else 1):
            found = [line for line in self.lines()[before:] if line.action in CALLS[call].audit]
            if found:
                break
            time.sleep(0.02)
        assert {line.actor for line in found} == {self.by}, (call, self.lines()[before:])
        assert all(line.address and line.subject for line in found), call
        self.seen.setdefault(call, set()).update(line.action for line in found)
        return answer


@contextmanager
def whole(walk: Walk) -> Iterator[Walk]:
    """Every call of this walk is to be made in it, with every line that it may write."""
    yield walk
    assert walk.seen == {name: set(call.audit) for name, call in CALLS.items() if call.walk == walk.name}


def test_what_the_centre_decides_is_decided_by_the_api_and_noted(site: LiveSite, sign: Sign) -> None:
    with whole(Walk(site, "decisions", sign("root"), sign("alice"))) as walk:
        walk("POST /roles", json={"name": "desk", "title": "Desk"})
        walk("PATCH /roles/{name}", "/roles/desk", json={"rights": ["people:manage"]})
        walk("DELETE /roles/{name}", "/roles/desk")
        walk("POST /groups", json={"title": "Course", "slug": "course"})
        walk("PATCH /groups/{slug}", "/groups/course", json={"title": "Course 2"})
        walk("DELETE /groups/{slug}", "/groups/course")
        walk("PATCH /quotas", json={"changes": [{"role": "student", "measure": "nodes", "amount": 3}]})
        given = {"user": "bob", "measure": "clusters", "amount": 3, "reason": "Thesis"}
        exception = f"/quota-exceptions/{walk('POST /quota-exceptions', json=given).json()['id']}"
        walk("PATCH /quota-exceptions/{id}", exception, json={"amount": 4})
        walk("DELETE /quota-exceptions/{id}", exception)
        walk("PATCH /release-rules", json={"everybody": {"idle_percent": 7}})
        walk("PUT /site/home", json={"title": "Campus"})
        walk("DELETE /site/home")
        walk("PATCH /site/messages", json={"today": "Hello"})
        one = walk("POST /site/announcements", json={"text": "Soon"}).json()
        address = f"/site/announcements/{one['id']}"
        walk("PUT /site/announcements/{id}", address, json={"text": "Now"})
        walk("DELETE /site/announcements/{id}", address)


def test_people_are_imported_by_the_api_and_it_is_noted(site: LiveSite, sign: Sign) -> None:
    root = sign("root")
    with whole(Walk(site, "imports", root, sign("alice"))) as walk:
        begun = walk("POST /imports", wait=True, json={"text": "name,role\ns1,student\n"}).json()
        address = f"/imports/{begun['id']}"
        answer = walk("POST /imports/{id}/passwords", address + "/passwords")
        password = answer.json()["passwords"]["s1"]
        assert re.fullmatch(r"\w{4}-\w{4}-\w{4}", password)
        assert root.post(address + "/passwords").status_code == 410, "once"
        assert not any(password in repr(line) for line in walk.lines())
        walk("DELETE /imports/{id}", address)


def test_a_password_is_set_by_the_api_and_told_once_where_it_was_made(site: LiveSite, sign: Sign) -> None:
    root, alice = sign("root"), sign("alice")
    assert alice.put("/people/bob/password", json={}).status_code == 403
    told = root.put("/people/bob/password", json={})
    assert told.headers["Cache-Control"] == "no-store"
    made_here = told.json()["password"]
    assert root.put("/people/bob/password", json={"password": "of their own"}).json()["password"] is None
    assert root.put("/people/bob/password", json={"password": "short"}).status_code == 400
    assert site.hub.named == [("bob", {"password": made_here}), ("bob", {"password": "of their own"})]


def test_what_people_have_is_administered_by_the_api_and_noted(
    site: LiveSite, sign: Sign, tmp_path: Path
) -> None:
    root, alice, bob = sign("root"), sign("alice"), sign("bob")
    with whole(Walk(site, "things", root, bob)) as walk:
        _projects(walk, site, alice)
        _datasets(walk, alice)
        _class(walk, site)
        _archives(walk, alice)
        _volumes(walk, tmp_path)


def _projects(walk: Walk, site: LiveSite, alice: httpx.Client) -> None:
    project, path = made(alice), "/projects/alice/heat-flow"
    of = "/projects/{owner}/{slug}"
    run = alice.post(path + "/clusters", json={}).json()["id"]
    walk("DELETE /clusters/{id}", f"/clusters/{run}", json={"reason": "maintenance"})
    walk(f"PATCH {of}", path, json={"description": "better said"})
    line = walk.lines()[-1]
    assert (line.subject, line.before, line.after) == (
        "alice/heat-flow",
        {"description": ""},
        {"description": "better said"},
    )
    walk(f"PUT {of}/cover", path + "/cover", content=png(), headers={"Content-Type": "image/png"})
    walk(f"DELETE {of}/cover", path + "/cover")
    walk(f"PUT {of}/shares", path + "/shares", json={"person": "nobody", "access": "read"})
    walk(f"DELETE {of}/shares", path + "/shares?person=nobody")
    walk(f"PUT {of}/publication", path + "/publication")
    walk(f"DELETE {of}/publication", path + "/publication")
    walk(f"PUT {of}/taken-down", path + "/taken-down", json={"reason": "a wrong word"})
    walk(f"DELETE {of}/taken-down", path + "/taken-down")
    walk(f"PUT {of}/owner", path + "/owner", json={"owner": "root"})
    walk.admin.put("/projects/root/heat-flow/owner", json={"owner": "alice"})
    walk(f"DELETE {of}", path)
    binned = f"/bin/projects/{project['id']}"
    walk("POST /bin/projects/{id}", binned)
    assert alice.delete(path).status_code == 204
    assert walk.lines()[-1].action == "project.restore", "of one's own there is no line"
    walk("DELETE /bin/projects/{id}", binned)


def _datasets(walk: Walk, alice: httpx.Client) -> None:
    dataset = alice.post("/datasets", json={"name": "Moons"}).json()
    path, of = "/datasets/alice/moons", "/datasets/{owner}/{slug}"
    assert alice.patch(path, json={"summary": "hers"}).status_code == 200
    assert walk.lines()[-1].action == "project.delete-for-ever", "of one's own there is no line"
    walk(f"PATCH {of}", path, json={"summary": "better said"})
    walk(f"PUT {of}/cover", path + "/cover", content=png(), headers={"Content-Type": "image/png"})
    walk(f"DELETE {of}/cover", path + "/cover")
    walk(f"PUT {of}/taken-down", path + "/taken-down", json={"reason": "a wrong word"})
    walk(f"DELETE {of}/taken-down", path + "/taken-down")
    walk(f"PUT {of}/owner", path + "/owner", json={"owner": "root"})
    walk.admin.put("/datasets/root/moons/owner", json={"owner": "alice"})
    walk(f"DELETE {of}", path)
    binned = f"/bin/datasets/{dataset['id']}"
    walk("POST /bin/datasets/{id}", binned)
    assert alice.delete(path).status_code == 204
    walk("DELETE /bin/datasets/{id}", binned)


def _class(walk: Walk, site: LiveSite) -> None:
    made(walk.admin, "Lesson")
    walk.admin.post("/groups", json={"title": "Course", "slug": "course"})
    site.hub.people["alice"]["groups"].append("galilean-group:course")
    site.portal.people.forget("alice")
    walk.admin.put("/projects/root/lesson/publication")
    path, of = "/projects/root/lesson/forks-for/course", "/projects/{owner}/{slug}/forks-for/{group}"
    walk(f"POST {of}", path)
    walk(f"DELETE {of}", path)


def _archives(walk: Walk, alice: httpx.Client) -> None:
    project = made(alice, "Ice")
    packed = walk("POST /projects/export", json={"ids": [project["id"]]}).content
    assert alice.get(f"/projects/{project['id']}/export").status_code == 200
    assert [line.action for line in walk.lines()].count("project.export") == 1, (
        "of one's own there is no line"
    )
    job = brought(walk.admin, packed)
    settled(walk.admin, job, "ready")
    wish = {"choices": [{"number": 1, "owner": "alice"}]}
    walk("POST /archives/{id}", f"/archives/{job}", wait=True, json=wish)
    settled(walk.admin, job, "done")
    walk("DELETE /archives/{id}", f"/archives/{job}")


def _volumes(walk: Walk, tmp_path: Path) -> None:
    for name in ("big", "bigger"):
        (tmp_path / name).mkdir()
    walk("POST /volumes", json={"id": "big", "path": str(tmp_path / "big")})
    walk.admin.post("/volumes", json={"id": "bigger", "path": str(tmp_path / "bigger")})
    walk("PATCH /volumes/{id}", "/volumes/big", json={"state": "closed"})
    walk("PUT /volumes/{id}/drain", "/volumes/big/drain", json={"to": "bigger"})
    walk("DELETE /volumes/{id}", "/volumes/big")


def client_of(site: Site, name: str) -> httpx.Client:
    headers = {"Authorization": f"token {site.hub.token(name)}"}
    return httpx.Client(base_url=site.url + "api/v1", headers=headers, timeout=90)


def test_machines_are_administered_by_the_api_and_noted(make_park: MakePark) -> None:  # noqa: F811
    park = make_park(machine("m1"), machine("m2"))
    with client_of(park.site, "maria") as maria, client_of(park.site, "alice") as alice:
        with whole(Walk(park.site, "machines", maria, alice, by="maria")) as walk:
            orders = "POST /machines/{name}/orders"

            def order(action: str) -> str:
                answer = walk(orders, "/machines/m1/orders", json={"action": action})
                return f"/machines/m1/orders/{answer.json()['id']}"

            walk("POST /machines", json={"name": "m9"})
            for action in ("cordon", "uncordon"):
                order(action)
                park.rounds()
            walk("DELETE /machines/{name}/orders/{id}", order("out"))
            park.rounds()
            park.run("alice", "m2")
            walk("POST /machines/{name}/stop", "/machines/m2/stop", json={"confirm": "m2"})
            order("out")
            park.rounds()
            order("keep")
            park.rounds()
            order("compute")


def test_images_and_environments_are_administered_by_the_api_and_noted(
    docker: LiveSite,  # noqa: F811
) -> None:
    with client_of(docker, "root") as root, client_of(docker, "alice") as alice:
        with whole(Walk(docker, "images", root, alice)) as walk:
            found = {one["name"]: one["id"] for one in root.get("/environments").json()["items"]}
            path, of = f"/environments/{found['paint']}", "/environments/{id}"
            walk(f"PATCH {of}", path, json={"title": "Painting"})
            walk(f"PUT {of}/retired", path + "/retired")
            walk(f"DELETE {of}/retired", path + "/retired")
            walk("POST /image-places", json={})
            docker.write(
                store.create,
                actor=Actor(name="alice"),
                owner="alice",
                slug="mine",
                title="Mine",
                visibility="own",
                version=version("c"),
                now=NOW,
            )
            walk("POST /image-places", json={"image": version("c").image, "beforehand": True})
            walk(f"DELETE {of}", path)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"image": FIRST}, 202),
        ({}, 403),
        ({"image": FIRST, "machine": "host-1"}, 403),
        ({"image": FIRST, "beforehand": True}, 403),
    ],
)
def test_who_manages_environments_has_ones_image_fetched_everywhere_and_no_more(
    docker: LiveSite,  # noqa: F811
    sent: dict[str, Any],
    status: int,
) -> None:
    scopes = [*docker.hub.scopes("alice"), "custom:galilean:environments:manage"]
    with client_of(docker, "root") as root:
        made_role = {"name": "shelf", "title": "Shelf", "rights": ["environments:manage"]}
        assert root.post("/roles", json=made_role).status_code == 201
    docker.hub.rights["shelf"] = ["environments:manage"]
    docker.hub.people["alice"]["groups"].append("galilean:shelf")
    docker.portal.people.forget("alice")
    headers = {"Authorization": f"token {docker.hub.token('alice', scopes)}"}
    with httpx.Client(base_url=docker.url + "api/v1", headers=headers, timeout=90) as alice:
        assert alice.post("/image-places", json=sent).status_code == status
        assert alice.get("/image-places").status_code == 403
