"""A forked node differs from a plain one in nothing but speed; and nodes outlive the zygote."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx
import pytest

from spawner.process.layout import ClusterDirectory, read_json
from spawner.process.zygote import PRELOADED
from tests.process.hub import Hub, Zygote, eventually

pytestmark = pytest.mark.process

#: Modules that only the zygote's own work brings; none of them changes another.
OWN = re.compile(
    r"spawner\.node\.launcher|spawner\.process(\..*)?|argparse|spawner|ctypes(\..*)?|_ctypes|locale|_locale|tests(\..*)?"
)


def directory(hub: Hub, user: str, server: str) -> ClusterDirectory:
    return ClusterDirectory.of(hub.state / "clusters", user, server)


def forked(hub: Hub, user: str, server: str, rank: int = 0) -> bool:
    said = read_json(directory(hub, user, server).node_file(rank))
    assert said is not None
    return bool(said["zygote"])


def normal(text: str, *volatile: str) -> str:
    """Without what is different in any two starts."""
    for value in volatile:
        text = text.replace(value, "*")
    text = re.sub(r'"port": \d+', "*", text)
    text = re.sub(r"127\.0\.0\.1:\d+|localhost:\d+|:\d{4,5}\b", "*", text)
    text = re.sub(r"0x[0-9a-f]{6,}|[0-9a-f]{24,}|01[0-9A-Z]{24}", "*", text)
    text = re.sub(r'"(version_hash|hash|xsrf[^"]*|token|mathjaxUrl)": ?"[^"]*"|\?v=\d+|v=\d{10,}', "*", text)
    return re.sub(r"2\|1:[^\"; ]+|ts=\d+", "*", text)


def observe(hub: Hub) -> dict[str, Any]:
    """Everything of a node that can be seen from outside and inside."""
    browser = hub.browser("alice")
    page = browser.get("/user/alice/same/lab")
    assert page.status_code == 200, page.text[:500]
    assert "jupyter-config-data" in page.text
    cookies = sorted(
        (cookie.name, cookie.path, cookie.secure) for cookie in browser.cookies.jar if "/user/" in cookie.path
    )
    token = hub.token("alice")
    headers = {"Authorization": f"token {token}"}
    answers = {
        path: browser.get(f"/user/alice/same/{path}", headers=headers).status_code
        for path in (
            "api",
            "api/me",
            "api/kernelspecs",
            "api/terminals",
            "tree",
            "lab/api/settings",
            "lab/api/listings/@jupyterlab/x",
        )
    }
    anonymous = {
        path: httpx.get(f"{hub.url}/user/alice/same/{path}").status_code
        for path in ("api", "lab", "api/contents", "api/me")
    }
    me = browser.get("/user/alice/same/api/me", headers=headers).json()
    tokens = hub.api.get("/users/alice/tokens").json()["api_tokens"]
    scopes = sorted(
        sorted(item["scopes"]) for item in tokens if item.get("oauth_client", "").startswith("Server")
    )[-1:]
    said = json.loads((directory(hub, "alice", "same").home(0) / "said.json").read_text())
    page_text = normal(
        page.text, said["environment"]["JUPYTERHUB_API_TOKEN"], *browser.cookies.jar._cookies and []
    )
    return {
        "cookies": cookies,
        "answers": answers,
        "anonymous": anonymous,
        "me": me,
        "scopes": scopes,
        "page": re.sub(r'"token": ?"[^"]*"', "*", page_text),
        "said": said,
    }


def test_a_forked_node_is_a_plain_node(hub: Hub, zygote: Zygote) -> None:
    hub.user("alice")
    hub.run("alice", "same")
    assert forked(hub, "alice", "same")
    fork = observe(hub)
    hub.release("alice", "same")
    zygote.kill()
    try:
        hub.run("alice", "same")
        assert not forked(hub, "alice", "same"), "while the zygote is away, nodes are started plainly"
        plain = observe(hub)
        hub.release("alice", "same")
    finally:
        zygote.start()
    for part in ("cookies", "answers", "anonymous", "me", "scopes"):
        assert fork[part] == plain[part], part
    pages = [re.split(r"(?<=[,>])", item["page"]) for item in (fork, plain)]
    assert set(pages[0]) ^ set(pages[1]) == set()
    assert ("/user/alice/same/") in {path for _, path, _ in fork["cookies"]}
    for part in ("config", "traits", "extensions", "directory", "argv"):
        one, other = (json.dumps(item["said"][part], sort_keys=True, indent=1) for item in (fork, plain))
        tokens = [item["said"]["environment"]["JUPYTERHUB_API_TOKEN"] for item in (fork, plain)]
        assert normal(one, *tokens) == normal(other, *tokens), part
    environments = [
        {name: normal(value) for name, value in item["said"]["environment"].items() if name not in VOLATILE}
        for item in (fork, plain)
    ]
    assert environments[0] == environments[1]


VOLATILE = {"JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "MASTER_PORT", "PET_MASTER_PORT", "LC_CTYPE"}


def test_the_zygote_imports_nothing_that_a_plain_node_would_not(hub: Hub, zygote: Zygote) -> None:
    hub.user("alice")
    zygote.kill()
    try:
        hub.run("alice", "plain")
        said = json.loads((directory(hub, "alice", "plain").home(0) / "said.json").read_text())
        hub.release("alice", "plain")
    finally:
        zygote.start()
    import subprocess
    import sys

    program = "import sys, json; from spawner.process.zygote import preload; preload(); print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=60
    ).stdout
    extra = [name for name in set(json.loads(output)) - set(said["modules"]) if not OWN.fullmatch(name)]
    assert extra == []
    assert "jupyterlab.labhubapp" not in json.loads(output)
    assert "jupyterhub.singleuser.app" not in PRELOADED


def test_nodes_outlive_the_zygote(hub: Hub, zygote: Zygote) -> None:
    hub.user("bob")
    hub.run("bob", "long", nodes=2)
    assert forked(hub, "bob", "long", 1)
    zygote.kill()
    time.sleep(0.3)
    headers = {"Authorization": f"token {hub.token('bob')}"}
    for rank in range(2):
        url = (directory(hub, "bob", "long").nodes()[rank])["url"]
        prefix = "/user/bob/long/" + (f"node-{rank}/" if rank else "")
        assert httpx.get(f"{url}{prefix}api/me", headers=headers).status_code == 200
    zygote.start()
    hub.run("bob", "next")
    assert forked(hub, "bob", "next")
    hub.release("bob", "next")
    hub.release("bob", "long")
    assert not directory(hub, "bob", "long").path.exists()


def test_a_zygote_with_older_code_is_not_used(tmp_path: Any) -> None:
    from spawner.process.start import NodeCommand, ZygoteAway, ask_zygote

    stale = Zygote(tmp_path / "z.sock")
    command = NodeCommand(
        arguments=[], environment={}, directory=tmp_path, log=tmp_path / "log", exit_file=tmp_path / "exit"
    )
    try:
        import spawner.process.start as start

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(start, "code_stamp", lambda: "newer")
            with pytest.raises(ZygoteAway, match="code has changed"):
                ask_zygote(command, stale.path)
        with pytest.raises(ZygoteAway, match="PYTHONWARNINGS"):
            ask_zygote(
                NodeCommand(
                    arguments=[],
                    environment={"PYTHONWARNINGS": "error"},
                    directory=tmp_path,
                    log=tmp_path / "log",
                    exit_file=tmp_path / "exit",
                ),
                stale.path,
            )
        assert eventually(stale.listens), "a refusal is not an error"
    finally:
        stale.stop()
    assert not stale.path.exists()
    with pytest.raises(ZygoteAway, match="does not answer"):
        ask_zygote(command, stale.path)
