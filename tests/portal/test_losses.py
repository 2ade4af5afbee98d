"""What a release or a reset would lose outside “work”: told beside the dialog, by whoever can look, and never in its way."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from galilean.errors import UserError
from services.portal import losses
from services.portal.losses import Looks, Loss, loss_of
from services.portal.saving import Node
from spawner.records import Run
from tests.portal.conftest import Sign
from tests.portal.live import LiveSite
from tests.portal.test_doors import alice, running  # noqa: F401 - a fixture
from tests.portal.test_node import OwnNode, node  # noqa: F401 - a fixture

NOTHING: dict[str, Any] = {
    "image": "base",
    "size_bytes": 0,
    "image_bytes": 9,
    "mounted": [],
    "processes": 3,
    "apt": [],
    "pip": [],
    "conda": [],
    "added": 0,
    "changed": 0,
    "deleted": 0,
}
SOMETHING = {
    **NOTHING,
    "apt": ["cowsay"],
    "pip": ["heat 1.0", "torch 2.9"],
    "added": 12,
    "changed": 1,
    "size_bytes": 5 << 20,
}
GONE = {"message": "This node does not run any more.", "params": {}, "reason": "node-gone"}


class Images:
    """The image service, as far as it is asked to look: what each node has, and who was asked for."""

    def __init__(self) -> None:
        self.nodes: dict[int, dict[str, Any]] = {}
        self.asked: list[dict[str, Any]] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        outer = self

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                outer.goes_on.wait(60)
                told = outer.nodes.get(body["rank"], NOTHING)
                raw = json.dumps(told).encode()
                self.send_response(409 if "message" in told else 200)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def images(site: LiveSite) -> Iterator[Images]:
    made = Images()
    site.portal.parts["images_url"] = made.url
    yield made
    made.goes_on.set()
    made.server.shutdown()
    made.server.server_close()


def dialog(site: LiveSite, client: httpx.Client, path: str) -> str:
    answer = client.get(site.url + path)
    assert answer.status_code == 200, answer.text[:400]
    return answer.text


# ------------------------------------------------------------------------------------------------------- the portal


def test_the_dialog_opens_without_waiting_and_asks_beside_it(
    site: LiveSite,
    alice: httpx.Client,  # noqa: F811
    images: Images,
) -> None:
    run = running(alice, nodes=2)
    images.goes_on.clear()  # whoever waited for it would hang here
    for path, asks in (
        (f"clusters/{run}/release", f"clusters/{run}/losses"),
        ("clusters/release", f"clusters/{run}/losses"),
        (f"clusters/{run}/nodes/1/reset", f"clusters/{run}/losses?rank=1"),
        ("sign-out", f"clusters/{run}/losses"),
    ):
        text = dialog(site, alice, path)
        assert f'hx-get="{site.portal.prefix}{asks}"' in text
        assert "Looking at what changed" in text
    assert "/losses" not in dialog(site, alice, f"clusters/{run}/nodes/1/restart"), "a restart keeps files"
    assert images.asked == []


def test_all_nodes_are_told_with_packages_files_and_bytes_and_can_be_saved_first(
    site: LiveSite,
    alice: httpx.Client,  # noqa: F811
    images: Images,
) -> None:
    run = running(alice, nodes=3)
    images.nodes = {0: SOMETHING, 2: GONE}
    text = dialog(site, alice, f"clusters/{run}/losses")
    assert "1 system package: cowsay" in text
    assert "2 Python packages: heat 1.0, torch 2.9" in text
    assert "12 files added, 1 changed, 0 deleted, 5.0\u00a0MB in all" in text
    assert f'href="{site.portal.prefix}clusters/{run}/nodes/0/save"' in text
    assert "nodes/2/save" not in text
    assert "node-2" in text and "Could not be looked at. It does not run." in text
    assert "On 1 other node nothing was installed or changed" in text
    assert sorted(one["rank"] for one in images.asked) == [0, 1, 2]
    assert {(one["owner"], one["run"]) for one in images.asked} == {("alice", run)}
    one = dialog(site, alice, f"clusters/{run}/losses?rank=1")
    assert "Nothing was installed or changed outside “work”." in one
    told = alice.get(f"/clusters/{run}/losses").json()
    assert [(item["seen"], item["packages"]) for item in told["nodes"]] == [
        (True, {"apt": 1, "pip": 2}),
        (True, {}),
        (False, {}),
    ]
    assert alice.get(f"/clusters/{run}/losses?rank=3").status_code == 404
    assert alice.get(f"/clusters/{run}/losses?rank=-1").status_code == 404


def test_whoever_releases_for_others_is_told_amounts_and_strangers_nothing(
    site: LiveSite,
    alice: httpx.Client,  # noqa: F811
    images: Images,
    sign: Sign,
) -> None:
    run = running(alice)
    images.nodes = {0: SOMETHING}
    told = sign("root").get(f"/clusters/{run}/losses").json()
    said = " ".join(told["parts"][0]["lines"])
    assert "2 Python packages" in said and "12 files added" in said
    assert "torch" not in json.dumps(told) and "cowsay" not in json.dumps(told)
    assert told["parts"][0]["save_url"] == ""
    assert sign("bob").get(f"/clusters/{run}/losses").status_code == 404
    answer = sign("bob").get(site.url + f"clusters/{run}/losses")
    assert answer.status_code == 404


def test_a_service_that_is_away_hinders_no_release(
    site: LiveSite,
    alice: httpx.Client,  # noqa: F811
) -> None:
    run = running(alice)
    assert "/losses" not in dialog(site, alice, f"clusters/{run}/release"), "where nobody can look"
    assert alice.get(f"/clusters/{run}/losses").json() == {"nodes": [], "parts": [], "nothing": ""}
    site.portal.parts["images_url"] = "http://127.0.0.1:1"
    text = dialog(site, alice, f"clusters/{run}/losses")
    assert "Could not be looked at." in text and "does not answer" in text
    assert alice.post(site.url + f"clusters/{run}/release", headers={"HX-Request": "true"}).status_code < 300


def test_a_node_asks_for_its_own_cluster_alone_in_the_persons_language(
    site: LiveSite,
    node: OwnNode,  # noqa: F811
    images: Images,
    sign: Sign,
) -> None:
    images.nodes = {1: SOMETHING}
    told = node.client.get("/node/losses", params=node.asks, headers={"Accept-Language": "zh-CN"}).json()
    assert told["parts"][0]["name"] == "node-1"
    assert told["parts"][0]["lines"][0] == "1 个系统软件包：cowsay"
    assert told["parts"][0]["save_url"].endswith(f"clusters/{node.run}/nodes/1/save")
    one = node.client.get("/node/losses", params={**node.asks, "node": 0}).json()
    assert (one["parts"], one["nothing"]) == ([], "Nothing was installed or changed outside “work”.")
    other = sign("bob", scopes=["access:servers!server=bob/x", "access:services!service=portal"])
    assert other.get("/node/losses", params=node.asks).status_code == 403
    wrong = {**node.asks, "run": "0" * 26}
    assert node.client.get("/node/losses", params=wrong).status_code == 409
    assert node.client.get(f"/clusters/{node.run}/losses").status_code == 403, "a node is not its person"


# ------------------------------------------------------------------------------------------------------ the looking

RUN: Any = SimpleNamespace(id="r", nodes=9)


def test_a_node_that_is_slow_holds_nobody_and_the_others_are_told() -> None:
    async def go() -> None:
        late = asyncio.Event()

        async def look(of: Node) -> Mapping[str, Any]:
            if of.rank == 1:
                await late.wait()
            return SOMETHING

        looks = Looks(look, seconds=0.2)
        told = await looks.of(RUN, range(3))
        assert [one.added for one in told] == [12, 0, 12]
        assert str(told[1].unseen) == "It does not answer in time."
        late.set()

    asyncio.run(go())


def test_however_many_ask_a_node_is_looked_at_once_and_a_late_answer_serves_the_next() -> None:
    async def go() -> None:
        asked: list[int] = []
        late = asyncio.Event()

        async def look(of: Node) -> Mapping[str, Any]:
            asked.append(of.rank)
            await late.wait()
            return NOTHING

        looks = Looks(look, seconds=0.1)
        await asyncio.gather(*(looks.of(RUN, [0]) for _ in range(5)))
        again = asyncio.create_task(looks.of(RUN, [0]))
        await asyncio.sleep(0)
        late.set()
        (told,) = await again
        assert told.nothing
        assert asked == [0]
        await looks.of(RUN, [0])
        assert asked == [0, 0], "and once more when the first is over"

    asyncio.run(go())


def test_of_many_nodes_a_few_are_looked_at_together() -> None:
    async def go() -> None:
        now, most = 0, 0

        async def look(of: Node) -> Mapping[str, Any]:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1
            if of.rank == 7:
                raise UserError(
                    501, "On the machine runs no part that could save it ({machine}).", machine="m1"
                )
            if of.rank == 8:
                raise ValueError("a fault")
            return SOMETHING

        told = await Looks(look).of(RUN, range(9))
        assert most == losses.AT_ONCE
        assert "m1" in str(told[7].lines()[0])
        assert str(told[8].unseen) == "Something went wrong."

    asyncio.run(go())


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (NOTHING, []),
        ({**NOTHING, "size_bytes": 8192}, []),
        (
            {**NOTHING, "pip": ["a 1"], "added": 1, "size_bytes": 2048, "python": {"loose": []}},
            ["1 Python package: a 1", "2.0\u00a0KB in all"],
        ),
        ({**NOTHING, "deleted": 2}, ["0 files added, 0 changed, 2 deleted"]),
    ],
)
def test_a_loss_in_words(told: Mapping[str, Any], said: list[str]) -> None:
    assert [str(line) for line in loss_of(0, told).lines()] == said


def test_many_names_are_cut_and_counted() -> None:
    (line,) = loss_of(0, {**NOTHING, "apt": [f"p{n}" for n in range(30)]}).lines()
    assert str(line).startswith("30 system packages: p0, ") and str(line).endswith("p11 …")


def test_nodes_that_nobody_could_look_at_are_said_together(site: LiveSite) -> None:
    run: Run = SimpleNamespace(id="r", nodes=9, backend="process", word="running", user="alice")  # type: ignore[assignment]
    gone = [losses.unseen_of(rank, UserError(409, "gone", reason="node-gone")) for rank in range(8)]
    parts, nothing = losses.parts_of(site.portal, run, [*gone, Loss(rank=8)], own=True)
    assert [part.name for part in parts] == ["node-0, node-1, node-2, node-3, node-4, node-5 …"]
    assert nothing is not None and "1 other node" in str(nothing)
