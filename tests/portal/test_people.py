"""People, groups, roles, audit and imports in pages: who may, what is shown, what is done (AP-31 … AP-36)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from extensions.quota.measures import Measure
from extensions.quota.store import COMMAND, REMOVE, set_limits
from galilean import centre
from galilean.clock import utcnow
from galilean.errors import UserError
from galilean.rights import RIGHTS
from galilean.tables import audit_log
from services.metering.work import tell_difference
from services.people import roles, store
from services.portal import people
from services.portal.admin import ENTRIES
from services.release import rules as release_rules
from tests.portal.live import LiveSite
from tests.web.conftest import Visitor

#: Every page and call of the administration, and the rights of which any one opens it.
ADMIN = [
    ("GET", "admin", ("clusters:read-all", "people:manage", "machines:manage", "usage:read-all")),
    ("GET", "admin/people", ("people:manage",)),
    ("GET", "admin/people-new", ("people:manage",)),
    ("GET", "admin/people-import", ("people:manage",)),
    ("GET", "admin/people/bob", ("people:manage",)),
    ("GET", "admin/people/bob/block", ("people:manage",)),
    ("GET", "admin/people/bob/delete", ("people:manage",)),
    ("GET", "admin/groups", ("groups:manage",)),
    ("GET", "admin/groups/new/edit", ("groups:manage",)),
    ("GET", "admin/roles", ("roles:manage",)),
    ("GET", "admin/roles/student", ("roles:manage",)),
    ("GET", "admin/audit", ("audit:read",)),
    ("GET", "admin/audit.csv", ("audit:read",)),
    ("POST", "admin/people/bob/roles", ("people:manage",)),
    ("POST", "admin/people/bob/block", ("people:manage",)),
    ("POST", "admin/people/bob/delete", ("people:manage",)),
    ("POST", "admin/people/bob/password", ("people:manage",)),
    ("POST", "admin/roles", ("roles:manage",)),
    ("POST", "admin/groups", ("groups:manage",)),
    ("POST", "admin/people-import/preview", ("people:manage",)),
    *(("GET", entry.place, entry.rights) for entry in ENTRIES),
]


class Person(Visitor):
    """A browser whose scripts send forms."""

    def form(self, path: str, **fields: str) -> httpx.Response:
        return self.script("POST", path, data=fields)

    def drop(self, path: str) -> httpx.Response:
        return self.script("DELETE", path)


@pytest.fixture
def root(site: LiveSite) -> Iterator[Person]:
    with Person(site, "root") as visitor:
        yield visitor


def a_role(site: LiveSite, name: str, *rights: str) -> None:
    site.write(roles.create_role, name=name, title=name.capitalize(), rights=rights, now=utcnow(), by="root")
    site.hub.rights[name] = list(rights)
    site.portal.rights.forget()


@pytest.mark.parametrize("right", RIGHTS)
def test_each_right_opens_its_own_pages_and_no_other(site: LiveSite, right: str) -> None:
    a_role(site, "desk", right)
    site.hub.add("dora", "desk")
    with Person(site, "dora") as dora:
        sidebar = dora.get("").text
        for method, place, rights in ADMIN:
            answer = dora.script(method, place)
            if right in rights:
                assert answer.status_code < 500, (method, place)
                assert answer.status_code != 403 or "administrators" not in answer.text, (method, place)
            else:
                assert answer.status_code == 403, (method, place)
        for entry in ENTRIES:
            assert (f'/services/portal/{entry.place}"' in sidebar) == (right in entry.rights), entry.place


def test_people_are_found_filtered_and_given_roles(site: LiveSite, root: Person) -> None:
    for number in range(120):
        site.hub.add(f"s{number:03}", "student")
    page = root.get("admin/people").text
    assert "nobody" in page
    assert "124" in page
    assert "s049" not in root.get("admin/people?q=s00").text
    assert root.get("admin/people?q=s00").text.count('class="plain-link"') == 10
    assert root.form("admin/people/nobody/roles", role="student", act="give").status_code == 200
    assert site.hub.people["nobody"]["groups"] == ["galilean:student"]
    assert root.get("admin/people/nobody").status_code == 200
    assert root.get("account").status_code == 200


def test_an_account_is_made_blocked_and_deleted_with_its_name_typed(site: LiveSite, root: Person) -> None:
    made = root.form("admin/people-new", name="Eva", role="student", full_name="Eva Lind")
    assert re.search(r'class="secret">[A-Za-z0-9]{4}-[A-Za-z0-9]{4}-[A-Za-z0-9]{4}<', made.text)
    assert site.hub.people["eva"]["groups"] == ["galilean:student"]
    assert root.form("admin/people/eva/block", reason="Lent the password").status_code == 200
    assert "galilean-blocked" in site.hub.people["eva"]["groups"]
    assert root.form("admin/people/eva/delete", typed="ev").status_code == 400
    assert "Type" in root.get("admin/people/eva/delete").text
    assert root.form("admin/people/eva/delete", typed="eva").status_code == 200
    assert "eva" not in site.hub.people


def test_who_is_blocked_is_told_so_and_sees_nothing(site: LiveSite) -> None:
    site.hub.people["bob"]["groups"].append("galilean-blocked")
    with httpx.Client(headers={"Authorization": f"token {site.hub.token('bob')}"}) as bob:
        answer = bob.get(site.url + "api/v1/projects")
    assert (answer.status_code, answer.json()["reason"]) == (403, "blocked")


def test_roles_and_groups_are_made_changed_and_refused_while_in_use(site: LiveSite, root: Person) -> None:
    assert root.form("admin/roles", name="desk", title="Help desk", right="people:manage").status_code == 200
    assert root.form("admin/groups", title="Physics 101", role="desk").status_code == 200
    assert ("ROLES", "") in site.hub.calls
    refused = root.drop("admin/roles/desk")
    assert refused.status_code == 409
    assert "Physics 101" in refused.text
    assert root.drop("admin/roles/student").status_code == 409
    assert root.form("admin/groups/physics-101/members", person="nobody bob", act="add").status_code == 200
    assert "galilean-group:physics-101" in site.hub.people["nobody"]["groups"]
    page = root.get("admin/groups/physics-101").text
    assert "nobody" in page
    assert root.form("admin/groups", title="All", role="admin").status_code == 400
    assert root.drop("admin/groups/physics-101").status_code == 200
    by: dict[str, Any] = {"now": site.portal.clock(), "actor": COMMAND}
    site.write(set_limits, [("desk", Measure("nodes"), 3)], **by)
    site.write(release_rules.set_role, "desk", {"most_seconds": 7200}, now=by["now"], actor="root")
    refused = root.drop("admin/roles/desk")
    assert refused.status_code == 409
    assert "1 limits of its own, rules of release of its own" in refused.text
    site.write(set_limits, [("desk", Measure("nodes"), REMOVE)], **by)
    site.write(release_rules.set_role, "desk", {"most_seconds": None}, now=by["now"], actor="root")
    assert root.drop("admin/roles/desk").status_code == 200
    with site.portal.db.read() as conn:
        assert "desk" not in centre.all_roles(conn)


def test_nobody_makes_or_changes_a_role_beyond_their_own_rights(site: LiveSite) -> None:
    a_role(site, "keeper", "roles:manage", "groups:manage")
    site.hub.add("kim", "keeper")
    with Person(site, "kim") as kim:
        assert kim.form("admin/roles", name="mine", title="Mine", right="roles:manage").status_code == 200
        for right in ("people:manage", "quotas:manage"):
            assert kim.form("admin/roles", name="more", title="More", right=right).status_code == 403
            assert kim.form("admin/roles/keeper", rights="1", right=right).status_code == 403
        site.hub.people["kim"]["groups"].append("galilean-group:club")
        assert kim.form("admin/groups", title="Club").status_code == 200
        assert kim.form("admin/groups/club", role="researcher").status_code == 403
    with site.portal.db.read() as conn:
        lines = conn.execute(audit_log.select()).all()
    assert [line.action for line in lines].count("role.refused") == 4
    assert "group.refused" in {line.action for line in lines}


def test_what_counts_for_a_decision_is_who_somebody_is_now(site: LiveSite) -> None:
    a_role(site, "keeper", "roles:manage", "groups:manage")
    site.hub.add("kim", "keeper")
    with Person(site, "kim") as kim:
        assert kim.form("admin/groups", title="Club").status_code == 200
        for groups, role, form in (
            (["galilean:keeper", "galilean-group:club"], "admin/groups/club", {"role": "keeper"}),
            ([], "admin/roles", {"name": "mine", "title": "Mine"}),
            (["galilean:keeper", "galilean-blocked"], "admin/roles", {"name": "mine", "title": "Mine"}),
        ):
            site.hub.people["kim"]["groups"] = ["galilean:keeper"]
            site.portal.people.forget("kim")
            assert kim.get("admin/roles").status_code == 200
            # At the hub itself, so that the portal has not heard of it.
            site.hub.people["kim"]["groups"] = groups
            assert kim.form(role, **form).status_code == 403


def test_a_mail_address_and_a_name_are_the_hubs_to_keep(site: LiveSite, root: Person) -> None:
    assert root.form("account/names", full_name="Ro  Ot", mail="root@example.edu").status_code == 200
    assert root.form("admin/people/bob/names", full_name="Bob", mail="").status_code == 200
    assert site.hub.named == [
        ("root", {"full_name": "Ro Ot", "mail": "root@example.edu"}),
        ("bob", {"full_name": "Bob", "mail": ""}),
    ]


def test_where_accounts_come_from_elsewhere_they_have_no_password_here(site: LiveSite, root: Person) -> None:
    site.hub.elsewhere = True
    made = root.form("admin/people-new", name="Eva", role="student")
    assert "eva" in site.hub.people
    assert "another system" in made.text
    assert 'class="secret"' not in made.text
    here = imported(root, "name,role\ntom,student\n")
    assert "tom" in site.hub.people
    assert root.form(here + "/passwords").status_code == 410


def imported(root: Person, table: str) -> str:
    """Import a table, and wait until it is through; its page."""
    begun = root.form("admin/people-import/begin", text=table)
    assert begun.status_code == 200, begun.text
    here = begun.headers["HX-Redirect"].partition("/services/portal/")[2]
    for _ in range(600):
        if "Importing" not in root.get(here).text:
            return here
        time.sleep(0.05)
    raise AssertionError("the import did not end")


def test_passwords_wait_for_whoever_imports_while_others_go_on(site: LiveSite, root: Person) -> None:
    first = imported(root, "name\ns1\n")
    second = imported(root, "name\ns2\n")
    assert "s1" in root.form(first + "/passwords").text
    assert root.form(first + "/passwords").status_code == 410
    assert "s2" in root.form(second + "/passwords").text


def test_only_one_import_runs_however_many_begin_at_once(site: LiveSite, root: Person) -> None:
    root.get("admin/people-import")  # signs in
    table = "name\n" + "".join(f"s{number}\n" for number in range(30))
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda _: root.form("admin/people-import/begin", text=table).status_code, range(4))
        )
    assert sorted(answers) == [200, 409, 409, 409]


def test_no_line_of_an_import_ends_the_others_and_no_password_is_lost_with_an_answer(
    site: LiveSite, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = people.create

    async def create(handler: Any, **given: Any) -> Any:
        if given["name"] == "s1":
            raise RuntimeError("of our making")
        made = await real(handler, **given)
        if given["name"] == "s2":
            values = {"now": utcnow(), "import_id": given["import_id"]}
            await site.portal.db.run(store.keep, "s2", **values)
            raise UserError(503, "The answer was lost.")
        return made

    monkeypatch.setattr(people, "create", create)
    here = imported(root, "name\ns1\ns2\ns3\n")
    page = root.get(here).text
    assert "made 2" in page
    assert "not done 1" in page
    listed = root.form(here + "/passwords").text
    assert re.search(r"^s2,,made,[A-Za-z0-9-]{14},", listed, re.MULTILINE)
    assert re.search(r"^s1,,failed,,", listed, re.MULTILINE)


def test_an_undo_that_stopped_halfway_is_tried_again(site: LiveSite, root: Person) -> None:
    here = imported(root, "name,role\ns1,\ns2,\nbob,teacher\n")
    site.hub.faults[("DELETE", "/hub/api/galilean/people/s2")] = 503
    site.hub.faults[("PATCH", "/hub/api/galilean/people/bob")] = 500
    first = root.drop(here)
    assert "try again" in first.headers["HX-Trigger"]
    assert "s1" not in site.hub.people
    assert "s2" in site.hub.people
    assert "Not now." in root.get(here).text
    site.hub.people.pop("s2")  # somebody else was quicker
    assert root.drop(here).status_code == 200
    assert site.hub.people["bob"]["groups"] == ["galilean:student"]
    assert root.drop(here).status_code == 409


TABLE = "账号;姓名;角色;邮箱\ns1;李伟;学生;li@example.edu\ns2;Ana;Student;nonsense\nbob;;teacher;\ns1;x;;\n=x;y;;\n"


def test_an_import_is_looked_at_carried_out_and_undone(site: LiveSite, root: Person) -> None:
    table = TABLE.replace("学生", "student").encode("gbk").decode("gbk")
    preview = root.form("admin/people-import/preview", text=table)
    assert "1 new, 1 there already, 3 with faults" in preview.text
    assert len(site.hub.people) == 4
    begun = root.form("admin/people-import/begin", text=table)
    here = begun.headers["HX-Redirect"].partition("/services/portal/")[2]
    for _ in range(200):
        page = root.get(here).text
        if "initial password was made" in page:
            break
        time.sleep(0.05)
    assert site.hub.people["s1"]["groups"] == ["galilean:student"]
    assert "galilean:teacher" in site.hub.people["bob"]["groups"]
    listed = root.form(here + "/passwords")
    assert re.search(r"^s1,李伟,made,[A-Za-z0-9-]{14},", listed.text, re.MULTILINE)
    assert root.form(here + "/passwords").status_code == 410
    assert root.drop(here).status_code == 200
    assert "s1" not in site.hub.people
    assert site.hub.people["bob"]["groups"] == ["galilean:student"]
    with site.portal.db.read() as conn:
        actions = [line.action for line in conn.execute(audit_log.select())]
    assert actions[-3:] == ["people.import", "people.import.passwords", "people.import.undo"]


def test_the_audit_log_is_searched_and_exported(site: LiveSite, root: Person) -> None:
    for number in range(60):
        a_role(site, f"r{number}")
    root.form("admin/roles/r7", title="Seven", rights="1", right="audit:read")
    page = root.get("admin/audit?subject=r7").text
    assert "Seven" in page
    assert "R7" in page
    assert page.count("<code>role.") == 2
    assert "Older" in root.get("admin/audit").text
    lines = root.get("admin/audit.csv?what=role").text.strip().splitlines()
    assert len(lines) == 62
    assert root.get("admin/audit?from=2020-01-01&to=2020-01-02").text.count("<code>") == 0


def test_the_overview_says_what_waits_with_the_way_to_it(site: LiveSite, root: Person) -> None:
    page = root.get("admin").text
    assert "people wait for a role" in page
    assert 'href="/services/portal/admin/people?state=waits"' in page
    assert "> wrong now<" not in page
    with site.portal.db.write() as conn:
        tell_difference(conn, {"missing": ["a", "b"], "strays": ["c"]}, utcnow())
    site.portal.parts["frame"].forget()
    assert re.search(r'badge-count">3<span class="visually-hidden"> wrong now', root.get("admin").text)
