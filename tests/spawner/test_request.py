"""What a request may say: the keys of the contract, and nothing that a plan resolves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.errors import UserError
from spawner.request import ClusterRequest

WRONG = [
    ("a list", [1]),
    ("text", "nodes=2"),
    ("unknown key", {"colour": "red"}),
    ("image smuggled in", {"image": "evil:latest"}),
    ("mounts smuggled in", {"mounts": ["/etc"]}),
    ("variables smuggled in", {"environment_variables": {"A": "b"}}),
    ("a hub trait smuggled in", {"cmd": ["sh"]}),
    ("text for a number", {"nodes": "2"}),
    ("zero nodes", {"nodes": 0}),
    ("negative nodes", {"nodes": -1}),
    ("too many nodes", {"nodes": 10**9}),
    ("half a node", {"nodes": 1.5}),
    ("NaN nodes", {"nodes": math.nan}),
    ("infinite nodes", {"nodes": math.inf}),
    ("a list of nodes", {"nodes": [1]}),
    ("a boolean for a number", {"nodes": True}),
    ("nodes with a thousand digits", {"nodes": 10**1000}),
    ("CPU with a thousand digits", {"cpu": 10**1000}),
    ("almost infinite CPU", {"cpu": 1e308}),
    ("memory with a thousand digits", {"memory": 10**1000}),
    ("memory with a thousand digits as text", {"memory": "9" * 1000}),
    ("a port with a thousand digits", {"ports": [10**1000]}),
    ("no CPU", {"cpu": 0}),
    ("negative CPU", {"cpu": -1}),
    ("text CPU", {"cpu": "2"}),
    ("NaN CPU", {"cpu": math.nan}),
    ("absurd CPU", {"cpu": 1e9}),
    ("no memory", {"memory": 0}),
    ("negative memory", {"memory": -1}),
    ("memory in sheep", {"memory": "8 sheep"}),
    ("absurd memory", {"memory": "1000000T"}),
    ("NaN memory", {"memory": math.nan}),
    ("negative GPU", {"gpu": -1}),
    ("absurd GPU", {"gpu": 10**9}),
    ("environment as an object", {"environment": {"image": "evil"}}),
    ("environment as a number", {"environment": 3}),
    ("an empty project", {"project": ""}),
    ("a project with a line break", {"project": "a\nb"}),
    ("a port too low", {"ports": [22]}),
    ("a port too high", {"ports": [70000]}),
    ("ports as text", {"ports": "8080"}),
    ("too many ports", {"ports": list(range(2000, 2100))}),
    ("unknown node loss", {"on_node_loss": "panic"}),
    ("a number as key", {3: 3}),
]


@pytest.mark.parametrize("options", [options for _, options in WRONG], ids=[name for name, _ in WRONG])
def test_a_wrong_request_is_refused_with_a_sentence(options):
    with pytest.raises(UserError) as refused:
        ClusterRequest.parse(options)
    assert refused.value.status == 400
    assert str(refused.value)[-1] in ".”"
    assert "{" not in str(refused.value)


def test_a_whole_request_is_read():
    request = ClusterRequest.parse(
        {
            "project": "bob/heat",
            "nodes": 2.0,
            "cpu": 0.5,
            "memory": "8G",
            "gpu": 0,
            "gpu_model": "a100",
            "storage": 20 * 2**30,
            "environment": "jupyter",
            "pool": "default",
            "ports": [8080, 8080, 9090],
            "release": "2h",
            "on_node_loss": "keep",
            "profile": "anything",
        }
    )
    assert (request.nodes, request.cpu_millicores, request.memory_bytes) == (2, 500, 8 * 2**30)
    assert request.ports == (8080, 9090)
    assert ClusterRequest.from_dict(request.as_dict()) == request


def test_left_out_is_left_to_the_project():
    assert ClusterRequest.parse(None) == ClusterRequest.parse({}) == ClusterRequest()
    assert ClusterRequest.parse({"nodes": None}) == ClusterRequest()
    assert ClusterRequest().as_dict() == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["project", "nodes", "cpu", "memory", "gpu", "storage", "ports", "release", "image"])


@given(st.dictionaries(keys | st.text(max_size=8), json_values, max_size=5))
def test_whatever_is_sent_it_is_a_sound_request_or_a_refusal(options):
    try:
        request = ClusterRequest.parse(options)
    except UserError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.status == 400
        assert str(refusal)
        return
    assert "image" not in options
    assert request.nodes is None or 1 <= request.nodes <= 1024
    assert request.cpu_millicores is None or request.cpu_millicores > 0
    assert request.memory_bytes is None or request.memory_bytes > 0
    assert ClusterRequest.from_dict(request.as_dict()) == request
