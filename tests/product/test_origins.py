"""What a hostile student with a node tries, on one origin: nothing of it may work."""

from __future__ import annotations

import json
import re
import stat
import time
from datetime import UTC, datetime

import httpx
import pytest

from tests.product.code import in_node
from tests.product.product import PASSWORD, Person, Product, processes_of, wait_for

API = "/services/portal/api/v1"


@pytest.fixture(scope="module")
def eve(product: Product) -> Person:
    """A student with a node."""
    somebody = product.person("eve", "student")
    somebody.running("Evil")
    return somebody


@pytest.fixture(scope="module")
def victim(product: Product) -> Person:
    """A researcher with another."""
    somebody = product.person("victim")
    somebody.running("Mine")
    return somebody


@pytest.fixture(scope="module")
def stolen(eve: Person) -> str:
    """The node's own token, as any program on the node reads it."""
    return in_node(eve, "evil", "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").strip()


def refused(answer: httpx.Response) -> bool:
    return answer.status_code in (401, 403, 404)


def test_the_nodes_own_token_opens_nothing_but_presence(
    product: Product, eve: Person, victim: Person, stolen: str
):
    me, other = f"/hub/api/users/{eve.name}", f"/hub/api/users/{victim.name}"
    (mine,), (theirs,) = eve.clusters(), victim.clusters()
    project = f"{API}/projects/{eve.name}/evil"
    portal = "/services/portal"
    tried: list[tuple[str, str, dict | None]] = [
        ("GET", f"{API}/projects", None),
        ("POST", f"{API}/projects", {"name": "x"}),
        ("GET", project, None),
        ("PATCH", project, {"name": "x"}),
        ("DELETE", project, None),
        ("GET", f"{project}/files", None),
        ("PUT", f"{project}/files/x", {}),
        ("DELETE", f"{project}/files/x", None),
        ("POST", f"{project}/clusters", {}),
        ("GET", f"{API}/clusters", None),
        ("DELETE", f"{API}/clusters/{mine['id']}", None),
        ("DELETE", f"{API}/clusters/{theirs['id']}", None),
        ("GET", f"{API}/usage", None),
        ("GET", f"{API}/limits", None),
        ("GET", f"{portal}/", None),
        ("GET", f"{portal}/meter", None),
        ("GET", f"{portal}/events?watch=clusters", None),
        ("POST", f"{portal}/clusters/{mine['id']}/release", {}),
        ("GET", f"{portal}/projects/{eve.name}/evil/run", None),
        ("GET", f"{portal}/admin/people", None),
        ("POST", f"{portal}/admin/people/{eve.name}/roles", {"role": "admin"}),
        ("GET", "/hub/api/users", None),
        ("GET", other, None),
        ("GET", f"{me}/tokens", None),
        ("POST", f"{me}/tokens", {}),
        ("POST", f"{me}/servers/more", {}),
        ("DELETE", f"{me}/servers/evil", None),
        ("POST", f"{other}/activity", {"last_activity": datetime.now(UTC).isoformat()}),
        ("GET", "/hub/api/groups", None),
        ("POST", "/hub/api/groups/galilean:admin/users", {"users": [eve.name]}),
        ("GET", "/hub/api/services", None),
        ("GET", "/hub/api/proxy", None),
        ("PUT", f"/hub/api/galilean/passwords/{eve.name}", {"password": "something-new-1"}),
        ("POST", "/hub/api/shutdown", {}),
        ("GET", "/hub/metrics", None),
        ("GET", f"/user/{victim.name}/mine/api/contents", None),
    ]
    for method, path, body in tried:
        answer = product.http.request(
            method, path, json=body, headers={"Authorization": f"token {stolen}", "HX-Request": "true"}
        )
        assert refused(answer), (method, path, answer.status_code, answer.text[:200])
    assert eve.is_ready("evil") and victim.is_ready("mine")


def test_presence_is_taken_for_the_tokens_own_open_run_only(
    product: Product, eve: Person, victim: Person, stolen: str
):
    (mine,), (theirs,) = eve.clusters(), victim.clusters()

    def report(**changes: object) -> int:
        body = {"server": "evil", "run": mine["id"], "rank": 0, "seen_at": time.time(), "open": 1, **changes}
        headers = {"Authorization": f"token {stolen}"}
        return product.http.post(f"{API}/presence", json=body, headers=headers).status_code

    assert report() == 204
    assert report(run=theirs["id"]) == 409
    assert report(server="mine", run=theirs["id"]) == 403
    assert report(rank=7) == report(rank=-1) == report(seen_at=1e300) == report(seen_at="yesterday") == 400
    assert report(seen_at=time.time() + 1e6) == 204
    (run,) = [run for run in product.open_runs() if run.user == eve.name]
    assert run.node_seen_at and run.node_seen_at <= datetime.now(UTC), "the future is not seen"


def test_nobody_makes_a_node_of_somebody_elses_cluster_anew_by_forged_ids(
    product: Product, eve: Person, victim: Person, stolen: str
):
    (mine,), (theirs,) = eve.clusters(), victim.clusters()
    before = product.node_pid(victim.name, "mine", 0)
    own = product.node_pid(eve.name, "evil", 0)
    for how in ("restart", "reset"):
        for path in (
            f"/clusters/{theirs['id']}/nodes/0/{how}",
            f"/clusters/{theirs['id'].lower()}/nodes/0/{how}",
            f"/clusters/{mine['id']}/../{theirs['id']}/nodes/0/{how}",
            f"/clusters/{mine['id']}%2F..%2F{theirs['id']}/nodes/0/{how}",
            f"/clusters/{mine['id']}/nodes/1/{how}",
            f"/clusters/{mine['id']}/nodes/-1/{how}",
            f"/clusters/{mine['id']}/nodes/٠/{how}",
        ):
            assert refused(eve.portal("POST", path)), path
        asked = {"server": "evil", "run": mine["id"], "rank": 0, "node": 0}
        for forged in (
            {"run": theirs["id"]},
            {"server": "mine", "run": theirs["id"]},
            {"server": f"../{victim.name}/mine", "run": theirs["id"]},
            {"node": 1},
            {"node": -1},
            {"node": "0"},
            {"node": True},
            {"user": victim.name},
        ):
            answer = product.http.post(
                f"{API}/node/{how}",
                json={**asked, **forged},
                headers={"Authorization": f"token {stolen}"},
            )
            assert answer.status_code in (400, 403, 404, 409), (forged, answer.text)
        # What a page of another site makes the owner's browser send.
        browser = victim.sign_in()
        page = f"/services/portal/clusters/{theirs['id']}/nodes/0/{how}"
        for path in (page, f"{API}/clusters/{theirs['id']}/nodes/0/{how}"):
            for headers in (
                {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site", "HX-Request": "true"},
                {"X-XSRFToken": "known"},
            ):
                assert refused(browser.post(path, headers=headers)), (path, headers)
    for somebody, server, pid in ((victim, "mine", before), (eve, "evil", own)):
        (run,) = somebody.clusters()
        assert [node.attempt for node in product.intervals(run["id"])] == [1]
        assert product.node_pid(somebody.name, server, 0) == pid


def test_a_running_cluster_cannot_be_shared(product: Product, eve: Person, victim: Person):
    for person in (eve, product.admin):
        for path, body in (("shares", {"user": victim.name}), ("share-codes", {})):
            answer = person.api("POST", f"/hub/api/{path}/{eve.name}/evil", json=body)
            assert answer.status_code == 403, (person.name, path, answer.text)


def test_an_administrator_opens_somebodys_node_only_after_a_confirmation(product: Product, eve: Person):
    boss = product.person("boss", "admin")
    browser = boss.sign_in()
    page = browser.get(f"/user/{eve.name}/evil/lab")
    assert "/oauth2/authorize" in str(page.url) and "jupyter-config-data" not in page.text
    assert f"{eve.name} decides what runs there." in page.text
    form = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
    opened = browser.post(str(page.url), data=form, headers={"Sec-Fetch-Mode": "navigate"})
    assert opened.status_code == 200 and "jupyter-config-data" in opened.text
    own = eve.sign_in().get(f"/user/{eve.name}/evil/lab")
    assert "jupyter-config-data" in own.text, "one's own asks nothing"
    assert "one origin" in product.command("doctor", code=None)


def test_a_token_for_reading_cannot_write(product: Product, eve: Person):
    def token(*scopes: str) -> Person:
        made = eve.api("POST", f"/hub/api/users/{eve.name}/tokens", json={"scopes": list(scopes)})
        return Person(product, eve.name, made.raise_for_status().json()["token"])

    reads = ("access:services!service=portal", "read:users!user")
    reader, writer = token(*reads), token(*reads, "custom:galilean:run")
    assert reader.portal("GET", "/projects").status_code == 200
    answer = reader.portal("POST", "/projects", json={"name": "Not this"})
    assert (answer.status_code, answer.json()["reason"]) == (403, "scope")
    assert reader.portal("DELETE", f"/clusters/{eve.clusters()[0]['id']}").status_code == 403
    assert writer.portal("POST", "/projects", json={"name": "But this"}).status_code == 201
    assert refused(reader.run("evil", project="evil"))


def test_a_changed_password_ends_the_other_sessions(product: Product):
    ruth = product.person("ruth")
    here, there = ruth.sign_in(), ruth.sign_in()
    for browser in (here, there):
        assert ruth.name in browser.get("/hub/token").text
    page = here.get("/hub/change-password")
    xsrf = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
    assert xsrf
    new = "another-lantern-19"
    form = {"old_password": PASSWORD, "new_password": new, "_xsrf": xsrf[1]}
    assert "is changed" in here.post("/hub/change-password", data=form).text
    assert ruth.name in here.get("/hub/token").text, "the browser in which it was changed stays"
    assert "/hub/login" in str(there.get("/hub/token").url)
    wait_for(
        lambda: "/hub/login" in str(there.get("/services/portal/").url), "the portal asks again", seconds=45
    )
    assert ruth.portal("GET", "/projects").status_code == 200, "tokens stay"


def test_cookies_are_kept_from_scripts_and_from_other_sites(product: Product, victim: Person):
    browser = httpx.Client(base_url=product.url, timeout=120)
    product.give_password(victim.name)
    said: list[str] = []
    browser.event_hooks["response"] = [lambda answer: said.extend(answer.headers.get_list("set-cookie"))]
    browser.follow_redirects = True
    page = browser.get("/hub/login")
    xsrf = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
    assert xsrf
    browser.post("/hub/login", data={"username": victim.name, "password": PASSWORD, "_xsrf": xsrf[1]})
    browser.get(f"/user/{victim.name}/mine/lab")
    names = {line.partition("=")[0] for line in said}
    assert {"jupyterhub-hub-login", "service-portal", f"jupyterhub-user-{victim.name}-mine"} <= names
    for line in said:
        if line.partition("=")[2].startswith('""') or "expires=Thu, 01 Jan 1970" in line.lower():
            continue
        low = line.lower()
        if line.startswith("_xsrf=") and "path=/user/" in low:
            continue  # JupyterLab's own scripts read it; it opens nothing without the sign-in
        assert "samesite=lax" in low and "httponly" in low, line


@pytest.mark.parametrize(
    "path", ["/hub/login", "/hub/signup", "/hub/nothing", "/hub/api/", "/services/portal/", f"{API}/projects"]
)
def test_every_answer_says_who_may_frame_it_and_is_not_sniffed(product: Product, path: str):
    answer = product.http.get(path)
    assert "frame-ancestors 'none'" in answer.headers.get("Content-Security-Policy", ""), answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "following", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_nobody_is_led_away_after_signing_in(product: Product, victim: Person, following: str):
    browser = victim.sign_in()
    browser.follow_redirects = False
    for path in ("/hub/login", "/hub/signup", "/hub/"):
        answer = browser.get(path, params={"next": following})
        where = answer.headers.get("location", "")
        assert not re.match(r"(https?:)?[/\\]{2}(?!127\.0\.0\.1)|javascript:", where), (path, where)
    for path in (
        "//evil.example/x",
        "/user/victim/mine/go/node-1//evil.example",
        "/user/victim/mine//evil.example/",
    ):
        answer = httpx.Client(cookies=browser.cookies, timeout=120).get(product.url + path)
        assert not answer.headers.get("location", "").startswith(("//", "http://evil", "/\\")), answer.headers


def test_a_huge_body_is_refused_before_it_is_held(product: Product, eve: Person):
    body = b'{"name": "' + b"x" * (8 * 2**20) + b'"}'
    headers = {"Content-Type": "application/json"}
    assert eve.portal("POST", "/projects", content=body, headers=headers).status_code == 413
    assert eve.portal("GET", "/projects").status_code == 200
    text = b"x" * (8 * 2**20)
    assert eve.portal("PUT", f"/projects/{eve.name}/evil/files/big.bin", content=text).status_code == 201


def test_secrets_are_in_no_argument_and_no_readable_file(product: Product, eve: Person, stolen: str):
    secrets = [stolen, eve.token] + [
        path.read_text(encoding="utf-8", errors="replace").strip()
        for path in (product.state / "secrets").rglob("*")
        if path.is_file()
    ]
    values = {value for text in secrets for value in [text, *_strings(text)] if len(value) >= 32}
    assert len(values) > 3
    for pid, command in processes_of(product.state).items():
        assert not [1 for value in values if value in command], f"a secret in the arguments of {pid}"
    assert stat.S_IMODE(product.state.stat().st_mode) == 0o700
    for path in (product.state / "secrets").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    shown = product.admin.api("GET", f"/hub/api/users/{eve.name}").json()["servers"]["evil"]
    assert not [1 for value in values if value in json.dumps(shown)]
    inside = in_node(eve, "evil", "import os, json; print(json.dumps(dict(os.environ)))")
    parts = [value for value in values if value not in (stolen, eve.token)]
    assert not [1 for value in parts if value in inside], "a node knows no secret of the parts"


def _strings(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    values = found.values() if isinstance(found, dict) else found if isinstance(found, list) else []
    return [value for value in values if isinstance(value, str)]


ODD = ["<img src=x onerror=alert(1)>", 'o\'brien "q"', "热流", "a%2fb", "{{7*7}}", "x;y=z"]


@pytest.mark.parametrize("name", ODD)
def test_people_with_odd_names_are_shown_as_text_and_can_run(product: Product, name: str):
    from urllib.parse import quote

    made = product.admin.api("POST", f"/hub/api/users/{quote(name, safe='')}", json={})
    if made.status_code == 400:
        return  # the hub refuses the name: nothing to attack with
    assert made.status_code == 201, made.text
    product.admin.api(
        "POST", "/hub/api/groups/galilean:researcher/users", json={"users": [name.lower()]}
    ).raise_for_status()
    path = f"/hub/api/users/{quote(name.lower(), safe='')}"
    token = product.admin.api("POST", f"{path}/tokens", json={}).json()["token"]
    somebody = Person(product, name.lower(), token)
    slug = somebody.project(name)
    answer = somebody.api("POST", f"{path}/servers/{slug}", json={"user_options": {"project": slug}})
    assert answer.status_code in (201, 202), answer.text
    try:
        wait_for(lambda: somebody.clusters()[0]["status"] == "running", "it runs", seconds=60)
        url = somebody.clusters()[0]["url"].removesuffix("lab")
        assert somebody.api("GET", f"{url}api/status").status_code == 200, url
        for page in ("/services/portal/", "/services/portal/projects"):
            text = somebody.api("GET", page).text
            assert "<img src=x" not in text, page
            assert name != "{{7*7}}" or "{{7*7}}" in text, page
        for page in ("admin/online", "admin/people"):
            text = product.admin.api("GET", f"/services/portal/{page}").text
            assert "<img src=x" not in text, page
    finally:
        assert somebody.api("DELETE", f"{path}/servers/{slug}").status_code in (202, 204)
