"""A cluster of two real nodes behind a real hub and proxy: doors, presence, ssh, deaths, release."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import websockets

from services.catalog.starter import starter_notebook
from spawner.process.family import look
from spawner.process.handles import Handle
from spawner.process.inventory import ProcessInventory
from spawner.process.layout import ClusterDirectory
from tests.process.hub import Hub, eventually

pytestmark = pytest.mark.process

P = "/user/carol/heat/"


@pytest.fixture(scope="module")
def cluster(hub: Hub) -> Iterator[ClusterDirectory]:
    """A running cluster of carol's with two nodes; node 1 has its route."""
    hub.user("carol")
    hub.run("carol", "heat", nodes=2)
    directory = ClusterDirectory.of(hub.state / "clusters", "carol", "heat")
    answer = httpx.post(
        f"http://127.0.0.1:{hub.ports[2]}/api/routes{P}node-1",
        headers={"Authorization": "token proxy-token"},
        json={"target": directory.nodes()[1]["url"]},
    )
    assert answer.status_code == 201
    yield directory
    hub.release("carol", "heat")


@pytest.fixture(scope="module")
def person(hub: Hub, cluster: ClusterDirectory) -> httpx.Client:
    """Carol's browser, signed in at the hub and at node 0."""
    browser = hub.browser("carol")
    assert browser.get(f"{P}lab").status_code == 200
    return browser


def cookie_header(browser: httpx.Client, path: str) -> str:
    return "; ".join(
        f"{item.name}={item.value}" for item in browser.cookies.jar if path.startswith(item.path)
    )


def environment(directory: ClusterDirectory, rank: int) -> dict[str, str]:
    """What a kernel or terminal of the node would have: the server's environment."""
    said = json.loads((directory.home(rank) / "said.json").read_text())
    return said["environment"]


def bash(
    directory: ClusterDirectory, rank: int, command: str, seconds: float = 30
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        env=environment(directory, rank),
        cwd=directory.home(rank) / "work",
        capture_output=True,
        text=True,
        timeout=seconds,
    )


# ------------------------------------------------------------------------------------------------ doors


def test_a_cold_deep_link_to_a_worker_ends_where_it_pointed(hub: Hub, cluster: ClusterDirectory) -> None:
    browser = hub.browser("carol")
    answer = browser.get(f"{P}node-1/lab/tree/deep%20er?reset&x=%2Fy")
    assert answer.status_code == 200, answer.text[:300]
    assert str(answer.url) == f"{hub.url}{P}node-1/lab/tree/deep%20er?reset&x=%2Fy"
    assert any(urlsplit(str(step.url)).path.startswith(f"{P}go/node-1/lab") for step in answer.history)
    assert f'"baseUrl": "{P}node-1/"' in answer.text


def test_who_signed_in_at_one_node_is_signed_in_at_all_by_one_cookie(
    person: httpx.Client, cluster: ClusterDirectory
) -> None:
    answer = person.get(f"{P}node-1/api/me")
    assert answer.status_code == 200
    assert answer.json()["identity"]["username"] == "carol"
    logins = [
        item
        for item in person.cookies.jar
        if item.name.startswith("jupyterhub-user-carol") and "state" not in item.name
    ]
    assert {(item.path) for item in logins} == {P}
    assert {
        item.path for item in person.cookies.jar if item.name == "_xsrf" and item.path.startswith("/user")
    } == {P}


def test_the_bounce_stays_in_the_cluster(person: httpx.Client, cluster: ClusterDirectory) -> None:
    for path in ("go/node-1//evil.example/x", "go/node-1/https://evil.example", "node-0//evil.example"):
        answer = person.get(f"{P}{path}", follow_redirects=False)
        assert answer.status_code == 302
        assert answer.headers["location"].startswith(P)
    assert person.get(f"{P}go/node-2/lab").status_code == 404
    assert person.get(f"{P}go/evil.example/").status_code == 404


def test_node_0_has_one_address(person: httpx.Client, cluster: ClusterDirectory) -> None:
    answer = person.get(f"{P}node-0/lab/tree/a?b=c", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, f"{P}lab/tree/a?b=c")


def test_strangers_get_nothing(hub: Hub, cluster: ClusterDirectory) -> None:
    hub.user("mallory")
    stranger = hub.browser("mallory")
    token = {"Authorization": f"token {hub.token('mallory')}"}
    for base in (P, f"{P}node-1/"):
        assert httpx.get(f"{hub.url}{base}api/contents").status_code == 403
        assert httpx.get(f"{hub.url}{base}api/contents", headers=token).status_code == 403
        assert stranger.get(f"{base}lab").status_code in (403, 404)
        assert httpx.get(f"{hub.url}{base}lab", follow_redirects=False).status_code == 302


def test_jupyterlab_opens_in_the_projects_files(
    hub: Hub, person: httpx.Client, cluster: ClusterDirectory
) -> None:
    (hub.state / "volumes/default/carol/heat/here.txt").write_text("here")
    for base in (P, f"{P}node-1/"):
        listing = person.get(f"{base}api/contents").json()["content"]
        assert "here.txt" in [item["name"] for item in listing]
    page = person.get(f"{P}lab").text
    assert '"news": {"disabled": true}' in page
    assert '"can_install": false' in page


def test_programs_find_the_other_nodes(cluster: ClusterDirectory) -> None:
    for rank in range(2):
        env = environment(cluster, rank)
        assert (env["GALILEAN_NODES"], env["GALILEAN_RANK"]) == ("2", str(rank))
        assert (env["NNODES"], env["NODE_RANK"], env["MASTER_ADDR"]) == ("2", str(rank), "127.0.0.1")
        assert env["GALILEAN_CLUSTER"] == cluster.wanted_run()
        assert env["SAID"] == "by environment"
        with open(env["OMPI_MCA_orte_default_hostfile"]) as file:
            assert file.read() == "node-0 slots=1\nnode-1 slots=1\n"
        assert not any(name.endswith("_FD") for name in env)
    assert environment(cluster, 0)["MASTER_PORT"] == environment(cluster, 1)["MASTER_PORT"]


def test_a_node_inherits_no_descriptor_of_the_hub_or_the_zygote(cluster: ClusterDirectory) -> None:
    for rank in range(2):
        pid = cluster.nodes()[rank]["pid"]
        files = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        outside = [
            name
            for name in files
            if name.startswith("/") and not name.startswith((str(cluster.path), "/memfd:galilean", "/dev/"))
        ]
        assert [name for name in outside if not name.startswith(str(cluster.path))] == []
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"NSsid:\t{pid}" in status, "a session of its own"


def test_terminals_start_in_work_with_a_plain_prompt(cluster: ClusterDirectory) -> None:
    said = bash(cluster, 1, "bash -ic 'echo \"[$PS1] $PWD $HOME\"' 2>/dev/null").stdout
    assert said.strip() == f"[node-1:\\w\\$ ] {cluster.home(1)}/work {cluster.home(1)}"


# -------------------------------------------------------------------------------------------------- ssh


@pytest.mark.skipif(shutil.which("sshd", path="/usr/sbin:/usr/bin") is None, reason="sshd is not installed")
def test_ssh_reaches_every_node_from_every_node_without_a_password(cluster: ClusterDirectory) -> None:
    for here in range(2):
        for there in range(2):
            command = f"ssh node-{there} 'echo $GALILEAN_RANK $HOME $PWD; hostname'"
            done = bash(cluster, here, command)
            assert done.returncode == 0, done.stderr
            said = done.stdout.splitlines()
            assert said[0].split() == [str(there), str(cluster.home(there)), f"{cluster.home(there)}/work"]
            assert said[1] == os.uname().nodename
    assert bash(cluster, 0, "ssh node-1 'echo [$JUPYTERHUB_API_TOKEN]'").stdout == "[]\n"
    assert bash(cluster, 0, "ssh node-1 exit 7").returncode == 7


@pytest.mark.skipif(shutil.which("sshd", path="/usr/sbin:/usr/bin") is None, reason="sshd is not installed")
def test_files_are_copied_between_nodes(cluster: ClusterDirectory) -> None:
    done = bash(cluster, 0, "echo data > ~/one; scp -q ~/one node-1:two && ssh node-1 cat two")
    assert (done.returncode, done.stdout) == (0, "data\n"), done.stderr


def test_a_shell_is_told_the_nodes(cluster: ClusterDirectory) -> None:
    for words, said in (
        ("", "node-0\nnode-1\n"),
        ("--slots", "node-0 slots=1\nnode-1 slots=1\n"),
        ("--others", "node-0\n"),
        ("--comma", "node-0,node-1\n"),
    ):
        assert bash(cluster, 1, f"galilean-hosts {words}").stdout == said
    assert bash(cluster, 0, "galilean-hosts --wrong").returncode != 0


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("sshd", path="/usr/sbin:/usr/bin") is None, reason="sshd is not installed")
def test_the_first_notebook_has_every_node_at_work_without_an_option(cluster: ClusterDirectory) -> None:
    notebook = cluster.home(0) / "work" / "welcome.ipynb"
    notebook.write_bytes(starter_notebook("en"))
    run = "from nbclient.cli import main; main(['--inplace', '--timeout=240', 'welcome.ipynb'])"
    done = bash(cluster, 0, f'{sys.executable} -c "{run}"', seconds=280)
    assert done.returncode == 0, done.stderr
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    told = "".join(
        line for out in cells[-2]["outputs"] if out.get("name") == "stdout" for line in out["text"]
    )
    assert told.endswith("Pythons at work: 2\n"), told  # after the progress of their start
    (shown,) = cells[-1]["outputs"]
    said = "".join(shown["data"]["text/plain"])
    assert "π ≈ 3.14" in said
    assert "'node-0': " in said
    assert "'node-1': " in said
    # Engines go with the kernel that wanted them.
    eventually(lambda: not left_of_engines(cluster), 60, "no engine is left")


def left_of_engines(directory: ClusterDirectory) -> list[str]:
    """Processes of ipyparallel on any node of a cluster."""
    needle, found = str(directory.path).encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            if b"ipyparallel" in command and needle in (entry / "environ").read_bytes():
                found.append(command.decode())
        except OSError:
            continue
    return found


# --------------------------------------------------------------------------------------------- presence


def ours(portal: Any, run: str | None) -> list[dict[str, Any]]:
    return [report for report in portal.told if report["run"] == run]


async def test_a_kernels_websocket_is_presence_and_its_end_is_too(
    hub: Hub, person: httpx.Client, cluster: ClusterDirectory, portal: Any
) -> None:
    run = cluster.wanted_run()
    base = f"{P}node-1/"
    xsrf = next(item.value for item in person.cookies.jar if item.name == "_xsrf" and item.path == P)
    kernel = await asyncio.to_thread(
        person.post, f"{base}api/kernels", headers={"X-XSRFToken": xsrf or "", "Sec-Fetch-Mode": "cors"}
    )
    assert kernel.status_code == 201, kernel.text
    url = f"ws://127.0.0.1:{hub.ports[0]}{base}api/kernels/{kernel.json()['id']}/channels"
    headers = {"Cookie": cookie_header(person, base)}
    async with websockets.connect(url, additional_headers=headers, origin=hub.url):  # pyright: ignore[reportArgumentType]
        seen = await until(lambda: [r for r in ours(portal, run) if r["rank"] == 1 and r["open"] == 1], 40)
    assert seen[0]["path"] == "/services/portal/api/v1/presence"
    assert seen[0]["server"] == "heat"
    assert seen[0]["token"] == f"token {environment(cluster, 1)['JUPYTERHUB_API_TOKEN']}"
    last = await until(
        lambda: [
            r
            for r in ours(portal, run)
            if r["rank"] == 1 and r["open"] == 0 and r["seen_at"] >= seen[-1]["seen_at"]
        ],
        45,
    )
    assert last
    await asyncio.to_thread(
        person.delete, f"{base}api/kernels/{kernel.json()['id']}", headers={"X-XSRFToken": xsrf or ""}
    )


async def until(condition: Any, seconds: float) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        await asyncio.sleep(0.1)
    raise AssertionError("did not happen")


async def test_the_presence_websocket_opens_for_the_person_only(
    hub: Hub, person: httpx.Client, cluster: ClusterDirectory
) -> None:
    for base in (P, f"{P}node-1/"):
        url = f"ws://127.0.0.1:{hub.ports[0]}{base}galilean/presence"
        headers = {"Cookie": cookie_header(person, base)}
        async with websockets.connect(url, additional_headers=headers, origin=hub.url) as connection:  # pyright: ignore[reportArgumentType]
            await (await connection.ping())
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(url, origin=hub.url):  # pyright: ignore[reportArgumentType]
                pass
        assert refused.value.response.status_code == 403
        with pytest.raises(websockets.InvalidStatus):
            async with websockets.connect(url, additional_headers=headers, origin="http://evil.example"):  # pyright: ignore[reportArgumentType]
                pass


def test_neither_strangers_nor_the_nodes_own_token_are_presence(hub: Hub, portal: Any) -> None:
    hub.user("dave")
    hub.run("dave", "quiet")
    directory = ClusterDirectory.of(hub.state / "clusters", "dave", "quiet")
    run = directory.wanted_run()
    own = {"Authorization": f"token {environment(directory, 0)['JUPYTERHUB_API_TOKEN']}"}
    for _ in range(3):
        assert httpx.get(f"{hub.url}/user/dave/quiet/api/contents", headers=own).status_code == 200
        assert httpx.get(f"{hub.url}/user/dave/quiet/api/contents").status_code == 403
        assert httpx.get(f"{hub.url}/user/dave/quiet/api").status_code == 200
    time.sleep(1)
    assert ours(portal, run) == []
    person = {"Authorization": f"token {hub.token('dave')}"}
    assert httpx.get(f"{hub.url}/user/dave/quiet/api/contents", headers=person).status_code == 200
    assert eventually(lambda: ours(portal, run), 10)
    hub.release("dave", "quiet")


# ------------------------------------------------------------------------------------- deaths, release


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_node_ends_the_cluster_within_15_seconds(hub: Hub, rank: int) -> None:
    hub.user("erin")
    hub.run("erin", "doomed", nodes=2)
    directory = ClusterDirectory.of(hub.state / "clusters", "erin", "doomed")
    os.kill(int(directory.nodes()[rank]["pid"]), 9)
    eventually(lambda: not hub.ready("erin", "doomed"), 15, "the hub notices")
    eventually(lambda: not directory.path.exists(), 10, "everything is removed")
    assert not [item for item in look() if item.mark and item.mark.directory == str(directory.path)]


def test_release_ends_kernels_terminals_and_what_they_started(hub: Hub) -> None:
    hub.user("frank")
    hub.run("frank", "busy")
    directory = ClusterDirectory.of(hub.state / "clusters", "frank", "busy")
    headers = {"Authorization": f"token {hub.token('frank')}"}
    base = f"{hub.url}/user/frank/busy/api"
    assert httpx.post(f"{base}/kernels", headers=headers, timeout=120).status_code == 201
    assert httpx.post(f"{base}/terminals", headers=headers, timeout=120).status_code == 200
    daemon = subprocess.Popen(
        ["bash", "-c", "trap '' TERM HUP; setsid sleep 600 & wait"],
        env=environment(directory, 0),
        start_new_session=True,
    )

    def members() -> list[Any]:
        return [item for item in look() if item.mark and item.mark.directory == str(directory.path)]

    eventually(lambda: len(members()) >= 5, 15, "node, kernel, terminal, bash and sleep run")
    handles = [Handle.of(item.pid) for item in members()]
    hub.release("frank", "busy")
    eventually(lambda: not members(), 15)
    assert not [handle for handle in handles if handle and handle.alive()]
    daemon.wait(5)


async def test_the_inventory_agrees_with_what_runs(hub: Hub, cluster: ClusterDirectory) -> None:
    sightings = [item for item in await ProcessInventory(hub.state).inventory() if item.user == "carol"]
    assert {(item.server, item.run, item.rank, item.alive) for item in sightings} == {
        ("heat", cluster.wanted_run(), 0, True),
        ("heat", cluster.wanted_run(), 1, True),
    }
