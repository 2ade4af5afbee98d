"""Applications of a real node: found, asked for by a form, started, reached behind the sign-in, ended (SC-3)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Thread
from typing import Any

import httpx
import pytest

from extensions.desktop.desktops import Desktops
from galilean.settings import load_settings
from galilean.settings_applications import Application
from spawner.node import applications as module
from spawner.node.applications import Applications, has
from spawner.node.listening import Ports
from tests.process.hub import eventually
from tests.process.jupyter import Jupyter
from tests.process.test_ports import PROGRAM

pytestmark = pytest.mark.process


class Portal(ThreadingHTTPServer):
    """Says which applications there are, and is told which a node has."""

    def __init__(self, applications: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.applications, self.told, self.away = applications, [], 2
        self.url = f"http://127.0.0.1:{self.server_port}/services/portal"
        Thread(target=self.serve_forever, daemon=True).start()


class _Answers(BaseHTTPRequestHandler):
    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said, status = b"{}", 200
        if self.path.endswith("/node/applications"):
            if self.server.away:
                self.server.away, status = self.server.away - 1, 503
            elif "has" in body:
                self.server.told.append(body["has"])
            said = json.dumps({"applications": self.server.applications}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *args: Any) -> None:
        pass


def application(**more: Any) -> dict[str, Any]:
    return Application.model_validate({"title": "Thing", "command": "sleep $APP_PORT", **more}).for_node()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    folder = tmp_path_factory.mktemp("node")
    programs = folder / "bin"
    programs.mkdir()
    tell = PROGRAM.replace("(sys.argv[1], 0)", "('127.0.0.1', int(os.environ['APP_PORT']))").replace(
        '"path": self.path,', '"path": self.path, "argv": sys.argv[1:], "env": dict(os.environ),'
    )
    for name in ("code-server", "rserver", "tensorboard", "teller"):
        (programs / name).write_text(f"#!{sys.executable}\nimport os{tell}")
        (programs / name).chmod(0o755)
    builtin = {name: one.for_node() for name, one in load_settings(environ={}).applications.items()}
    teller = "exec teller"
    applications = {
        **builtin,
        "missing": application(needs=["no-such-program"]),
        "window": application(kind="desktop", command="xeyes"),  # this node has no desktop
        "fails": application(command="echo it went wrong; exit 3; $APP_PORT"),
        "slow": application(command="echo still; sleep 600; $APP_PORT", ready_seconds=1),
        "form": application(
            title={"en": "A form", "zh_CN": "表单"},
            command=teller + " # $APP_PORT",
            fields={
                "words": {"title": "Words", "required": True, "longest": 40},
                "count": {"title": "Count", "type": "integer", "least": 1, "most": 9, "default": 2},
                "more": {"title": "More", "type": "switch"},
                "depth": {"title": "Depth", "type": "number", "when": {"more": True}, "default": 0.5},
                "folder": {"title": "Folder", "type": "directory"},
            },
        ),
    }
    portal = Portal(applications)
    made = Jupyter(
        folder / "home", portal=portal.url,
        more={"PATH": f"{programs}:{os.environ['PATH']}", "JUPYTERHUB_API_TOKEN": "a-secret-of-the-server"},
    )  # fmt: skip
    made.portal = portal  # type: ignore[attr-defined]
    eventually(lambda: portal.told, 30, "the node told what it has")
    yield made
    made.stop()
    portal.shutdown()
    portal.server_close()


def start(node: Jupyter, name: str, **values: Any) -> httpx.Response:
    return node.client.post(f"galilean/api/apps/{name}", json={"values": values})


def stop(node: Jupyter, name: str) -> None:
    assert node.client.delete(f"galilean/api/apps/{name}").json()["state"] == "stopped"


def stands(node: Jupyter, name: str) -> str:
    return node.client.get(f"galilean/api/apps/{name}").json()["state"]


def running_at(node: Jupyter, name: str, seconds: float = 30) -> None:
    """Wait until it answers."""
    eventually(lambda: stands(node, name) == "running", seconds, f"{name} runs")


def running(node: Jupyter, name: str, **values: Any) -> dict[str, Any]:
    """Start it, and what it says of a request."""
    assert start(node, name, **values).status_code == 202
    running_at(node, name)
    return node.client.get(f"apps/{name}/x?y=1").json()


def test_a_node_tells_what_it_has_the_programs_for(node: Jupyter) -> None:
    assert node.portal.told == [["rstudio", "tensorboard", "vscode", "fails", "slow", "form"]]  # type: ignore[attr-defined]
    assert node.client.get("galilean/apps/missing").status_code == 404
    listed = node.client.get("server-proxy/servers-info").json()["server_processes"]
    assert {"app-vscode", "app-form"} <= {item["name"] for item in listed}
    assert has(("a|b", "c"), {"b": "/b", "c": "/c"}.get) and not has(("a|b", "c"), {"c": "/c"}.get)


@pytest.mark.parametrize(
    ("name", "path", "called"),
    [
        ("vscode", "/x?y=1", ["--auth", "none"]),
        ("rstudio", "/x?y=1", ["--auth-none=1"]),
        (
            "tensorboard",
            "/user/ada/heat/apps/tensorboard/x?y=1",
            ["--path_prefix", "/user/ada/heat/apps/tensorboard"],
        ),
    ],
)
def test_the_listed_programs_start_and_are_reached_behind_the_sign_in(
    node: Jupyter, name: str, path: str, called: list[str]
) -> None:
    """A program of ours stands in the place of each, and tells how it was called and what it was sent."""
    said = running(node, name)
    assert said["path"] == path and all(word in said["argv"] for word in called)
    assert not any(word.startswith(("0.0.0.0", "--host=0")) for word in said["argv"])
    assert not {"authorization", "x-xsrftoken"} & {key.lower() for key, _ in said["headers"]}
    assert "JUPYTERHUB_API_TOKEN" not in said["env"] and said["env"]["PWD"].endswith("/work")
    stranger = httpx.get(f"{node.url}apps/{name}/x")
    assert stranger.status_code == 302 and "login" in stranger.headers["location"]
    stop(node, name)
    assert node.client.get(f"apps/{name}/x").headers["location"].endswith(f"/galilean/apps/{name}")


def test_a_form_says_what_does_not_fit_and_nothing_starts(node: Jupyter) -> None:
    answer = start(node, "form", words="", count="12", folder="../..")
    assert answer.status_code == 400
    assert answer.json()["wrong"] == {
        "words": "This is needed.", "count": "At most 9.", "folder": "A path below work, without “..”.",
    }  # fmt: skip
    chinese = node.client.post(
        "galilean/api/apps/form", json={"values": {"words": ""}}, headers={"Accept-Language": "zh-CN"}
    )
    assert chinese.json()["wrong"] == {"words": "此项必填。"}
    assert start(node, "form", words="a", folder="nowhere").json()["wrong"] == {
        "folder": "There is no “nowhere” in work."
    }
    assert start(node, "form", words="a", other="b").status_code == 400
    assert start(node, "form", words=["a"]).status_code == 400
    assert node.client.post("galilean/api/apps/form", json={"values": []}).status_code == 400
    assert stands(node, "form") == "stopped"


def test_values_are_variables_and_never_a_part_of_the_command(node: Jupyter) -> None:
    (node.root / "data").mkdir(exist_ok=True)
    said = running(
        node, "form", words="$(touch hacked); `id` 'x\" \\", count="3", more=True, folder="~/work/data"
    )["env"]
    assert said["APP_WORDS"] == "$(touch hacked); `id` 'x\" \\"
    assert (said["APP_COUNT"], said["APP_MORE"], said["APP_DEPTH"], said["APP_FOLDER"]) == (
        "3",
        "1",
        "0.5",
        "data",
    )
    assert not (node.root / "hacked").exists()
    again = start(node, "form", words="other")  # it runs: what it was started with stays
    assert again.status_code == 202 and again.json()["values"]["words"].startswith("$(touch")
    stop(node, "form")
    assert running(node, "form", words="b")["env"]["APP_DEPTH"] == ""  # not asked for without "more"
    stop(node, "form")


def test_what_ends_at_once_or_never_answers_says_what_it_printed(node: Jupyter) -> None:
    assert start(node, "fails").status_code == 202
    eventually(lambda: stands(node, "fails") == "ended", 20)
    told = node.client.get("galilean/api/apps/fails").json()
    assert told["code"] == 3 and "it went wrong" in told["log"]
    assert start(node, "slow").status_code == 202
    eventually(lambda: node.client.get("galilean/api/apps/slow").json()["late"], 20)
    assert "still" in node.client.get("galilean/api/apps/slow").json()["log"]
    stop(node, "slow")


def test_a_page_of_another_site_starts_nothing(node: Jupyter) -> None:
    evil = httpx.post(f"{node.url}galilean/api/apps/form", json={"values": {"words": "a"}})
    assert evil.status_code == 403 and stands(node, "form") == "stopped"


@pytest.mark.parametrize(
    "path", ["apps/../x/", "apps/FORM/", "apps/missing/", "apps/form%2f..%2f..%2f/", "galilean/apps/..%2fx"]
)
def test_what_is_no_application_is_no_door(node: Jupyter, path: str) -> None:
    assert node.client.get(path, follow_redirects=True).status_code in (404, 403)


def test_the_page_is_in_the_persons_language_and_carries_nothing_that_runs(node: Jupyter) -> None:
    page = node.client.get("galilean/apps/form", headers={"Accept-Language": "zh-CN"})
    assert (
        "表单" in page.text
        and "启动" in page.text
        and "unsafe" not in page.headers["content-security-policy"]
    )
    assert re.search(r'<input id="f-count"[^>]* min="1" max="9"', page.text)
    assert httpx.get(f"{node.url}galilean/apps/form").status_code == 302


def test_applications_of_a_cluster_are_its_owners_alone(tmp_path: Path) -> None:
    portal = Portal({"thing": application(command="exec sleep 60 # $APP_PORT")})
    portal.away = 0
    other = Jupyter(tmp_path / "home", portal=portal.url, more={"JUPYTERHUB_USER": "somebody-else"})
    try:
        eventually(lambda: portal.told, 30)
        for path in ("galilean/apps/thing", "galilean/api/apps/thing", "apps/thing/"):
            assert other.client.get(path).status_code == 403, path
        assert start(other, "thing").status_code == 403
    finally:
        other.stop()
        portal.shutdown()
        portal.server_close()


def test_an_application_with_windows_opens_in_a_desktop_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    offered: list[tuple[str, str, str]] = []
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    applications = Applications(environ, "/user/ada/heat/", Ports(environ))
    fields = {"words": {"title": "Words"}}
    window = {
        "thing": application(kind="desktop", command='echo "$APP_WORDS" >said; pwd >>said', fields=fields)
    }
    assert applications.learn(window) == []  # a node without a desktop
    applications.desktop = lambda *said: offered.append(said)
    assert applications.learn(window) == ["thing"]
    applications.start("thing", {"words": "it's $(id)"})
    ((name, title, command),) = offered
    assert (name, title) == ("app-thing", "Thing")
    assert applications.told("thing")["url"] == "/user/ada/heat/desktop/?app=app-thing"
    subprocess.run(["/bin/bash", "-c", command], check=True, cwd="/", env=environ)
    assert (tmp_path / "work" / "said").read_text() == f"it's $(id)\n{tmp_path}/work\n"
    desktops = Desktops(environ)
    desktops.offer(*offered[0])
    session = desktops.get("app-thing")
    assert session is not None and session.application is not None and session.application.command == command
    assert desktops.get("app-other") is None


def test_a_started_application_ends_with_the_server_of_its_node(tmp_path: Path) -> None:
    portal = Portal({"thing": application(command="echo $$ >pid; exec sleep 600 # $APP_PORT")})
    portal.away = 0
    made = Jupyter(tmp_path / "home", portal=portal.url)
    eventually(lambda: portal.told, 30)
    start(made, "thing")
    eventually(lambda: (made.root / "pid").exists() and (made.root / "pid").read_text().strip(), 20)
    pid = int((made.root / "pid").read_text())
    made.stop()
    eventually(lambda: not Path(f"/proc/{pid}").exists(), 20, "the program ended")
    portal.shutdown()
    portal.server_close()


def test_two_starts_at_once_leave_nothing_that_nobody_can_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Barrier(2)

    def slow() -> int:
        with contextlib.suppress(BrokenBarrierError):
            both.wait(1)  # the other one, if it comes as far
        return 8050

    monkeypatch.setattr(module, "_free_port", slow)
    made = Applications({"HOME": str(tmp_path)}, "/", Ports({}))
    made.known = {"one": application(command="echo $$ >> begun; exec sleep 600 # $APP_PORT")}
    threads = [Thread(target=made.start, args=("one", {})) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun = tmp_path / "begun"
    try:
        eventually(begun.exists, 10, "it runs")
        made.stop("one")
        assert len(begun.read_text().split()) == 1 and not made._begun
    finally:
        for pid in begun.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
