"""Strange names and paths through the whole of the portal: nothing gets out, nothing runs."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.files.paths import address
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite

BASE = "/services/portal/api/v1/projects/alice/heat-flow/files/"


def raw(site: LiveSite, token: str, method: str, path: str, body: bytes = b"x") -> tuple[int, bytes]:
    """One request whose path nobody tidies up on the way."""
    where = urlsplit(site.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
    try:
        headers = {"Authorization": token, "Content-Type": "application/json"}
        connection.request(method, path, body if method != "GET" else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


OUT = [
    "../other/secret",
    "..%2fother%2fsecret",
    "%2e%2e/%2e%2e/secret",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "a/..%2f..%2fsecret",
    "door/secret",
    "door%2fsecret",
    "x%00",
    "%00",
    "%ff/%ff",
    "....//secret",
    "..\\secret",
    ".galilean-upload/x",
    "a" * 300,
    "%ED%A0%80",
]


@pytest.mark.parametrize("path", OUT)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "PATCH", "DELETE"])
def test_no_path_in_an_address_leads_out_of_the_project(
    site: LiveSite, sign: Sign, tmp_path: Path, method: str, path: str
) -> None:
    alice = sign("alice")
    project = made(alice)
    (directory,) = site.portal.settings.volume_path("default").glob(f"projects/{project['id']}")
    outside = directory.parent / "other"
    outside.mkdir()
    (outside / "secret").write_text("SECRET")
    (directory.parent / "secret").write_text("SECRET")
    (directory / "door").symlink_to(outside)
    body = b'{"to": "../other/stolen"}' if method == "PATCH" else b"{}" if method == "POST" else b"x"
    token = alice.headers["Authorization"]
    status, content = raw(site, token, method, BASE + path, body)
    assert status in (200, 201, 204, 400, 404, 409), (status, content)
    assert b"SECRET" not in content
    assert (outside / "secret").read_text() == (directory.parent / "secret").read_text() == "SECRET"
    assert os.listdir(outside) == ["secret"]
    assert sorted(os.listdir(directory.parent)) == sorted([project["id"], "other", "secret"])
    for page in (f"preview/{path}", f"?folder={path}", f"?file={path}"):
        status, content = raw(
            site, token, "GET", f"/services/portal/projects/alice/heat-flow/{page}".replace("/?", "?")
        )
        assert status in (200, 400, 404), (page, status, content[-500:])
        assert b"SECRET" not in content


NAMES = [
    "<img src=x onerror=alert(1)>",
    "'\"><script>alert(1)<script>",
    "{{7*7}}",
    "{name}%(x)s",
    "热流 \U0001f600",
    "a%2fb",
    "?x=1#y",
    "javascript:alert(1)",
    "\\u003cscript\\u003e",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_file_or_project_becomes_markup(site: LiveSite, sign: Sign, name: str) -> None:
    alice = sign("alice")
    project = made(alice, name=name, description=name)
    base = f"projects/alice/{project['slug']}"
    token = alice.headers["Authorization"]
    for path in (name, f"{name}.md", f"{name}.ipynb", f"{name}.png"):
        status, content = raw(
            site, token, "PUT", f"/services/portal/api/v1/{base}/files/{address(path)}", b"# x"
        )
        assert status == 201, content
    names = {item["name"] for item in alice.get(f"/{base}/files").json()["items"]}
    assert name in names
    shown = [
        f"api/v1/{base}/preview/{address(path)}"
        for path in (name, f"{name}.md", f"{name}.png", f"{name}.ipynb")
    ]
    for page in ("projects", base, f"{base}?file={address(address(name))}", f"{base}/settings", *shown):
        status, content = raw(site, token, "GET", f"/services/portal/{page}")
        assert status == 200, (page, status, content[-300:])
        text = content.decode()
        assert "<img src=x" not in text
        assert "<script>alert" not in text
        assert "49" not in text or name != "{{7*7}}" or "{{7*7}}" in text


def test_names_in_no_encoding_are_listed_shown_and_deleted(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    project = made(alice)
    directory = site.portal.settings.volume_path("default") / "projects" / project["id"]
    (Path(os.fsdecode(os.fsencode(directory) + b"/caf\xe9\n.md"))).write_text("# odd")
    token = alice.headers["Authorization"]
    (item,) = alice.get("/projects/alice/heat-flow/files").json()["items"]
    assert raw(site, token, "GET", "/services/portal/projects/alice/heat-flow")[0] == 200
    status, content = raw(
        site, token, "GET", f"/services/portal/api/v1/projects/alice/heat-flow/preview/{item['path']}"
    )
    assert status == 200
    assert b"odd" in content
    assert raw(site, token, "GET", BASE + item["path"]) == (200, b"# odd")
    assert raw(site, token, "DELETE", BASE + item["path"])[0] == 204
    assert os.listdir(directory) == []


def test_a_preview_is_served_with_a_policy_that_lets_nothing_run(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    made(alice)
    alice.put("/projects/alice/heat-flow/files/README.md", content=b"# Hello [x](y.md)")
    answer = alice.get("/projects/alice/heat-flow/preview/README.md")
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox ")
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "/services/portal/projects/alice/heat-flow?file=y.md" in answer.text
    assert sign("bob").get("/projects/alice/heat-flow/preview/README.md").status_code == 404


@pytest.mark.parametrize("name", ["files", "preview", "files 2026", "settings", "projects"])
def test_a_project_may_be_called_as_a_part_of_its_addresses(sign: Sign, site: LiveSite, name: str) -> None:
    alice = sign("alice")
    project = made(alice, name=name)
    base = f"/projects/alice/{project['slug']}/files"
    assert alice.put(f"{base}/files/a.txt", content=b"1").status_code == 201
    assert alice.put(f"{base}/preview/a.txt", content=b"2").status_code == 201
    assert {item["path"] for item in alice.get(base).json()["items"]} == {"files", "preview"}
    assert alice.get(f"{base}/files/a.txt").content == b"1"
    assert "<pre" in alice.get(f"/projects/alice/{project['slug']}/preview/preview/a.txt").text
