"""One pod of a running cluster made anew, against an API server in memory: what it is made from, what fails."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from spawner.backend import NodeFailed
from spawner.collaborators import PullLogin
from spawner.doors import NODE_VNC_PASSWORD
from spawner.kubernetes import manifests, nodes
from spawner.kubernetes.api import APIError
from spawner.kubernetes.spec import Placement, recipe_of, spec_from
from spawner.plan import EnvironmentChoice
from tests.kubernetes.memory import Progress
from tests.kubernetes.test_manifests import TOKEN, VNC_PASSWORD, spec

BASE, RUN = spec().base, spec().run


def test_what_pods_are_made_from_is_written_down_whole_and_without_the_token() -> None:
    asked = spec()
    known = spec_from(recipe_of(asked))
    assert type(known) is type(asked)
    assert (known.token, known.run, known.mounts, known.placement) == (
        "",
        asked.run,
        asked.mounts,
        replace(asked.placement, tolerations=[]),
    )
    owner = {"apiVersion": "v1", "kind": "Secret", "name": BASE, "uid": "u"}
    for rank in range(asked.nodes):
        again = manifests.pod(spec_from(recipe_of(asked)), rank, owner)
        assert json.dumps(again, sort_keys=True) == json.dumps(
            manifests.pod(asked, rank, owner), sort_keys=True
        )


def test_whatever_kind_of_mapping_a_plan_or_the_configuration_hands_in_it_is_written_down() -> None:
    """An environment without variables of its own has a mapping that cannot be copied."""
    empty = EnvironmentChoice(name="jupyter", image="i").variables
    asked = spec(variables=empty, placement=Placement(node_selector=MappingProxyType({"a": "b"})))
    known = spec_from(recipe_of(asked))
    assert (known.variables, known.placement.node_selector) == ({}, {"a": "b"})
    assert "env" in asked.pod["spec"]["containers"][0], "what it is made of stays as it was"


def test_a_password_of_a_registry_is_not_written_down_twice_and_the_pod_still_finds_it() -> None:
    asked = spec(login=PullLogin(registry="r.example", username="u", password="pw-of-u"))
    assert "pw-of-u" not in recipe_of(asked)
    again = manifests.pod(spec_from(recipe_of(asked)), 1, {"uid": "u"})
    assert {"name": BASE} in again["spec"]["imagePullSecrets"]


def test_no_pod_sees_the_recipe() -> None:
    owner = {"apiVersion": "v1", "kind": "Secret", "name": BASE, "uid": "u"}
    assert manifests.RECIPE_KEY not in json.dumps(manifests.pod(spec(), 0, owner)["spec"]["volumes"])
    kept = base64.b64decode(
        manifests.secret(spec(), manifests.ClusterKeys.new())["data"][manifests.RECIPE_KEY]
    ).decode()
    assert TOKEN not in kept


async def test_one_pod_goes_and_comes_back_and_the_others_stay(world: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    before = {
        name: item["metadata"]["uid"] for (kind, name), item in cluster.objects.items() if kind == "Pod"
    }
    await made.check(BASE, RUN, 1)
    end = await made.end(BASE, RUN, 1)
    assert end is not None
    assert end.at is not None
    assert end.exit_reason == "", "it lived until it was asked for"
    assert len(cluster.of("Pod")) == 2
    progress = Progress()
    await made.make(BASE, RUN, 1, progress)
    assert progress.urls == {1: "http://10.0.0.1:8888"}
    after = {name: item["metadata"]["uid"] for (kind, name), item in cluster.objects.items() if kind == "Pod"}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{BASE}-1"}
    owner = cluster.objects["Pod", f"{BASE}-1"]["metadata"]["ownerReferences"]
    assert owner[0]["uid"] == cluster.objects["Secret", BASE]["metadata"]["uid"], "it goes with the whole"
    await made.remove(BASE)
    assert not cluster.objects


@pytest.mark.parametrize("older", [False, True])
async def test_a_pod_made_anew_still_has_the_password_of_its_vnc_server(world: Any, older: bool) -> None:
    cluster, made = world
    await made.create(spec(variables={NODE_VNC_PASSWORD: VNC_PASSWORD}), Progress())
    if older:  # of a run that was made before the Secret had it; it cannot be changed
        del cluster.objects["Secret", BASE]["data"][manifests.VNC_KEY]
    await made.end(BASE, RUN, 1)
    await made.make(BASE, RUN, 1, Progress())
    env = cluster.objects["Pod", f"{BASE}-1"]["spec"]["containers"][0]["env"]
    by_reference = {"valueFrom": {"secretKeyRef": {"name": BASE, "key": manifests.VNC_KEY}}}
    said = {"value": VNC_PASSWORD} if older else by_reference
    assert [item for item in env if item["name"] == NODE_VNC_PASSWORD] == [
        {"name": NODE_VNC_PASSWORD, **said}
    ]


async def test_ending_what_is_not_there_is_success(world: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    cluster.vanish("Pod", f"{BASE}-1")
    await asyncio.sleep(0)
    end = await made.end(BASE, RUN, 1)
    assert end is None or end.at is not None
    await made.make(BASE, RUN, 1, Progress())
    assert len(cluster.of("Pod")) == 3


async def test_a_pod_that_ended_by_itself_tells_its_own_end(world: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    over = {"exitCode": 137, "finishedAt": "2026-09-01T10:00:00Z", "reason": "OOMKilled"}
    cluster.be(
        f"{BASE}-1",
        phase="Failed",
        containerStatuses=[{"name": "notebook", "state": {"terminated": over}}],
    )
    await asyncio.sleep(0.01)
    end = await made.end(BASE, RUN, 1)
    assert end is not None
    assert "memory" in end.exit_reason
    assert str(end.at) == "2026-09-01 10:00:00+00:00"


async def test_an_api_server_that_is_away_for_a_moment_is_asked_again(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, made = world
    monkeypatch.setattr(nodes, "PAUSES_SECONDS", (0.0,))
    await made.create(spec(), Progress())
    await made.end(BASE, RUN, 2)
    cluster.refuse("Pod", APIError(503, "not now"), times=2)
    progress = Progress()
    await made.make(BASE, RUN, 2, progress)
    assert progress.urls


async def test_without_its_recipe_nothing_is_ended(world: Any) -> None:
    cluster, made = world
    await made.create(spec(), Progress())
    del cluster.objects["Secret", BASE]["data"][manifests.RECIPE_KEY]
    with pytest.raises(NodeFailed):
        await made.check(BASE, RUN, 1)
    assert len(cluster.of("Pod")) == 3


async def test_what_kueue_admitted_as_a_whole_is_left_as_a_whole(world: Any) -> None:
    _, made = world
    await made.create(spec(placement=Placement(queue="people")), Progress())
    with pytest.raises(NodeFailed):
        await made.check(BASE, RUN, 1)
