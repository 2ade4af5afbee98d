"""Pure rules: states, losses, the environment of a node, asking, comparing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPServerRequest

from galilean.errors import UserError
from spawner.asking import asked_by, language_of, refusal, sent_options
from spawner.backend import NodeLook
from spawner.cluster import VirtualCluster
from spawner.inventory import Sighting
from spawner.loss import judge
from spawner.node_env import node_environment, node_prefix
from spawner.states import CLOSED, OPEN, STEPS, Status, Target, may_step, public_word
from spawner.sweeper import compare, twice
from tests.quota.test_admission import run_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@given(st.sampled_from(list(Status)), st.sampled_from(list(Target)))
def test_every_state_has_a_public_word(status, target):
    assert public_word(status, target) in {
        "waiting", "starting", "running", "releasing", "released", "failed"
    }  # fmt: skip


def test_nothing_leaves_a_closed_state_and_every_open_one_can_be_closed():
    assert not any(before in CLOSED for before, _ in STEPS)
    reachable = set(CLOSED)
    while True:
        more = {before for before, after in STEPS if after in reachable} - reachable
        if not more:
            break
        reachable |= more
    assert reachable >= OPEN
    assert may_step("reserved", "starting")
    assert not may_step("running", "starting")


ALIVE = NodeLook(alive=True)
DEAD = NodeLook(alive=False, exit_reason="exited 1", ended_at=NOW)


@pytest.mark.parametrize(
    ("seen", "absences", "keep", "lost", "release"),
    [
        ({0: ALIVE, 1: ALIVE}, {}, False, [], False),
        ({0: ALIVE, 1: DEAD}, {}, False, [1], True),
        ({0: ALIVE, 1: DEAD}, {}, True, [1], False),
        ({0: DEAD, 1: ALIVE}, {}, True, [0], True),
        ({0: DEAD, 1: DEAD}, {}, True, [0, 1], True),
        ({0: ALIVE}, {}, False, [], False),
        ({0: ALIVE}, {1: 1}, False, [1], True),
        ({0: ALIVE}, {1: 1}, True, [1], False),
        ({}, {}, False, [], False),
        ({}, {0: 1, 1: 1}, True, [0, 1], True),
    ],
)
def test_who_is_lost_and_whether_the_rest_goes_on(seen, absences, keep, lost, release):
    loss = judge(seen, {0, 1}, absences, "keep" if keep else "release")
    assert sorted(loss.lost) == lost
    assert loss.release is release


def test_an_absence_is_forgotten_once_the_node_is_seen_again():
    first = judge({0: ALIVE}, {0, 1}, {}, "release")
    second = judge({0: ALIVE, 1: ALIVE}, {0, 1}, first.absences, "release")
    third = judge({0: ALIVE}, {0, 1}, second.absences, "release")
    assert not third.lost


SHARED = {
    "JUPYTERHUB_API_TOKEN": "t",
    "JUPYTERHUB_CLIENT_ID": "c",
    "JUPYTERHUB_SERVICE_PREFIX": "/base/user/ada/heat/",
    "JUPYTERHUB_PUBLIC_URL": "https://ada.hub.example/base/user/ada/heat/",
    "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:0/base/user/ada/heat/",
}


def test_all_nodes_share_one_identity_and_differ_only_in_their_place():
    envs = [
        node_environment(
            SHARED,
            run_id="R",
            project="ada/heat",
            rank=rank,
            nodes=2,
            bind=f"http://127.0.0.1:5000{rank}",
            variables={"JUPYTERHUB_API_TOKEN": "stolen", "OMP_NUM_THREADS": "2"},
        )
        for rank in range(2)
    ]
    different = {key for key in {*envs[0], *envs[1]} if envs[0].get(key) != envs[1].get(key)}
    assert different == {
        "JUPYTERHUB_SERVICE_PREFIX",
        "JUPYTERHUB_SERVICE_URL",
        "JUPYTERHUB_PUBLIC_URL",
        "JUPYTERHUB_ACTIVITY_INTERVAL",
        "GALILEAN_RANK",
        "NODE_RANK",
    }
    assert envs[0]["JUPYTERHUB_API_TOKEN"] == "t", "an environment may not override the node's identity"
    assert envs[0]["OMP_NUM_THREADS"] == "2"
    assert "JUPYTERHUB_ACTIVITY_INTERVAL" not in envs[0]
    assert envs[1]["JUPYTERHUB_ACTIVITY_INTERVAL"] == "0"
    assert envs[1]["JUPYTERHUB_SERVICE_URL"] == "http://127.0.0.1:50001/base/user/ada/heat/node-1/"
    assert envs[1]["JUPYTERHUB_PUBLIC_URL"] == "https://ada.hub.example/base/user/ada/heat/node-1/"
    assert (envs[1]["NNODES"], envs[1]["NODE_RANK"], envs[1]["MASTER_ADDR"]) == ("2", "1", "node-0")
    assert node_prefix("/user/a/b", 0) == "/user/a/b/"


class ApiHandler(SimpleNamespace):
    def get_server_json_body(self):
        raise NotImplementedError


def request(body: bytes = b"", method: str = "POST", uri: str = "/", **headers: str) -> HTTPServerRequest:
    class Connection:
        context = None

        def set_close_callback(self, callback):
            pass

    return HTTPServerRequest(
        method, uri, headers=HTTPHeaders(headers), body=body, connection=Connection(), host="h"
    )


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b"", None),
        (b"null", None),
        (b"{}", None),
        (b'{"user_options": null}', None),
        (b'{"display_name": "x"}', None),
        (b'{"user_options": {}}', "options"),
        (b'{"user_options": {"nodes": 2}}', "options"),
        (b'{"nodes": 2}', "options"),
    ],
)
def test_options_that_were_not_sent_are_told_apart_from_those_the_hub_remembered(body, sent):
    assert sent_options(ApiHandler(request=request(body)), "options") == sent


def test_a_page_without_options_means_defaults_too():
    page = SimpleNamespace(request=request(method="GET", uri="/hub/spawn/ada/heat?next=x"))
    assert sent_options(page, {"nodes": 7}) is None
    page = SimpleNamespace(request=request(method="GET", uri="/hub/spawn/ada/heat?opt-nodes=2"))
    assert sent_options(page, {"nodes": ["2"]}) == {"nodes": ["2"]}
    assert sent_options(None, {"nodes": 7}) is None


def test_who_asks_is_the_owner_an_admin_or_a_service():
    assert asked_by(None, "ada") == "ada"
    assert asked_by(SimpleNamespace(current_user=SimpleNamespace(kind="user", name="boss")), "ada") == "boss"
    service = SimpleNamespace(current_user=SimpleNamespace(kind="service", name="queue"))
    assert asked_by(service, "ada") == "service:queue"


def test_the_language_is_chosen_asked_for_or_the_sites():
    assert language_of(None, "zh_CN") == "zh_CN"
    chinese = SimpleNamespace(request=request(**{"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"}))
    assert language_of(chinese, "en") == "zh_CN"
    chosen = SimpleNamespace(
        request=request(**{"Accept-Language": "zh-CN", "Cookie": "galilean_language=en"})
    )
    assert language_of(chosen, "zh_CN") == "en"


def test_a_refusal_carries_status_reason_and_sentence():
    error = refusal(UserError(429, "You hold {used}.", reason="quota", used=2), str)
    assert (error.status_code, error.reason, error.jupyterhub_message) == (429, "quota", "You hold 2.")
    assert refusal(UserError(404, "No."), str).reason == "not-found"


def test_the_mixin_shadows_nothing_of_its_parents_by_accident():
    from dockerspawner import DockerSpawner
    from jupyterhub.spawner import SimpleLocalProcessSpawner
    from kubespawner import KubeSpawner

    meant = {
        "start", "stop", "poll", "progress", "rename", "get_url", "get_state", "clear_state",
        "delete_forever", "run_pre_spawn_hook", "ready", "poll_interval", "poll_and_notify",
    }  # fmt: skip
    ours = {name for name in vars(VirtualCluster) if not name.startswith("__")}
    ours |= {name for name in VirtualCluster._forget.__code__.co_names if name.startswith("_")}
    ours |= {name for name in VirtualCluster.__init__.__code__.co_names if name.startswith("_")}
    traitlets = {
        "_traits", "_descriptors", "_instance_inits", "_static_immutable_initial_values",
        "_trait_default_generators", "_all_trait_default_generators", "__init__", "_forget", "_busy",
    }  # fmt: skip
    for parent in (SimpleLocalProcessSpawner, KubeSpawner, DockerSpawner):
        shadowed = {name for name in ours if hasattr(parent, name)} - meant - traitlets
        assert shadowed == set(), parent


def sighting(run: str, age: float = 600, **more) -> Sighting:
    return Sighting(
        user="ada", server="heat", run=run, rank=0, started_at=NOW - timedelta(seconds=age), **more
    )


@pytest.mark.parametrize(
    ("status", "age", "seen", "orphans", "ghosts"),
    [
        ("running", 600, [sighting("R")], 0, 0),
        ("running", 600, [], 0, 1),
        ("running", 10, [], 0, 0),
        ("starting", 600, [], 0, 1),
        ("stopping", 600, [], 0, 1),
        ("reserved", 10, [], 0, 0),
        ("queued", 600, [], 0, 0),
        ("queued", 600, [sighting("R")], 1, 0),
        ("running", 600, [sighting("R"), sighting("other")], 1, 0),
        ("running", 600, [sighting("R"), sighting("other", age=5)], 0, 0),
        ("running", 600, [sighting("R"), sighting("other", state="ended")], 1, 0),
        ("running", 600, [sighting("R"), sighting("other", state="going")], 0, 0),
    ],
)
def test_orphans_and_ghosts(status, age, seen, orphans, ghosts):
    began = NOW - timedelta(seconds=age)
    row = run_of("R", status=status, queued_at=began, ready_at=began if status == "running" else None)
    found = compare([row], seen, NOW)
    assert (len(found.orphans), len(found.ghosts)) == (orphans, ghosts)


def test_what_does_not_tell_its_age_is_an_orphan_at_once():
    ageless = Sighting(user="ada", server="heat", run="R", rank=0)
    assert compare([], [ageless], NOW).orphans == (ageless,)


def test_two_absences_in_a_row_are_needed():
    assert twice([], ["a"]) == []
    assert twice(["a", "b"], ["b", "c"]) == ["b"]


def test_every_sentence_of_the_room_is_translated_with_the_same_placeholders():
    from pathlib import Path
    from string import Formatter

    from babel.messages.extract import extract_from_file

    from galilean.i18n import translations

    chinese = translations("zh_CN")
    root = Path(__file__).parents[2]
    files = [*sorted((root / "spawner").glob("*.py")), *sorted((root / "extensions/quota").glob("*.py"))]
    messages = {
        found[1] for file in files for found in extract_from_file("python", file, keywords={"mark": None})
    }
    assert len(messages) > 30

    def names(text: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    for message in messages:
        translated = chinese.gettext(message)
        assert translated != message or message == "Lab", message  # JupyterLab's own short name
        assert names(translated) == names(message)
