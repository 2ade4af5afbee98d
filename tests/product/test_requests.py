"""Requests from strangers to the truth: refused in words, nothing started, no row left open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.product.product import Person, Product, at_once, wait_for

WRONG: list[dict[str, Any]] = [
    {"image": "evil"},
    {"environment": "../../etc"},
    {"environment": "nowhere"},
    {"mounts": ["/"]},
    {"variables": {"PATH": "/tmp"}},
    {"nodes": "two"},
    {"nodes": 0},
    {"nodes": -1},
    {"nodes": 1e9},
    {"nodes": 1.5},
    {"nodes": [1]},
    {"nodes": True},
    {"cpu": 0},
    {"cpu": "2"},
    {"cpu": 1e9},
    {"memory": "a lot"},
    {"memory": -1},
    {"gpu": -1},
    {"release": "never"},
    {"on_node_loss": "cry"},
    {"ports": [22]},
    {"pool": "moon"},
    {"project": ["x"]},
]


@pytest.fixture(scope="module")
def asker(product: Product) -> Person:
    """Somebody with one project, who asks for wrong things."""
    somebody = product.person("asker")
    somebody.project("Good")
    return somebody


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_wrong_request_is_refused_in_words_and_leaves_nothing(product: Product, asker: Person, wrong: dict):
    answer = asker.run("good", **{"project": "good", **wrong})
    assert answer.status_code in (400, 403, 404, 429), answer.text
    message = answer.json()["message"]
    assert " " in message and message.endswith((".", "。")) and "Traceback" not in message
    assert not asker.is_ready("good") and not asker.clusters()
    assert not [seen for seen in product.sightings() if seen.user == asker.name]


def test_a_body_that_is_not_even_json_with_nan_is_refused(product: Product, asker: Person):
    answer = asker.api(
        "POST",
        f"/hub/api/users/{asker.name}/servers/good",
        content='{"user_options": {"project": "good", "cpu": NaN}}',
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 400, answer.text
    assert not asker.clusters()


def test_the_default_server_is_no_cluster(asker: Person):
    answer = asker.api("POST", f"/hub/api/users/{asker.name}/server", json={})
    assert answer.status_code == 400, answer.text


def test_a_project_that_does_not_exist_is_refused(asker: Person):
    assert asker.run("nothing", project="nothing").status_code == 404


def test_another_persons_project_is_refused(product: Product, asker: Person, ada: Person):
    slug = ada.project("Private")
    for server in (slug, "mine"):
        assert asker.run(server, project=f"{ada.name}/{slug}").status_code in (403, 404)
    answer = asker.api("POST", f"/hub/api/users/{ada.name}/servers/{slug}", json={"user_options": {}})
    assert answer.status_code in (403, 404)
    assert not ada.clusters() and not asker.clusters()


@pytest.mark.parametrize("server", ["node-1", "node-0", "go", "a--b", "UPPER", "x" * 40])
def test_a_reserved_name_is_refused(asker: Person, server: str):
    assert asker.run(server, project=server).status_code in (400, 403, 404)
    assert not asker.clusters()


@pytest.mark.parametrize("name", ["node-1", "go", "node-17"])
def test_a_project_never_gets_a_reserved_slug(asker: Person, name: str):
    answer = asker.portal("POST", "/projects", json={"name": name, "slug": name})
    if answer.status_code == 201:
        assert answer.json()["slug"] != name
    else:
        assert answer.status_code in (400, 422), answer.text


def test_a_refusal_does_not_spoil_the_next_start_without_a_body(product: Product, ada: Person):
    slug = ada.project("Next")
    assert ada.run(slug, project=slug, nodes=0).status_code == 400
    answer = ada.api("POST", f"/hub/api/users/{ada.name}/servers/{slug}")
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: ada.is_ready(slug), "the project's defaults start", seconds=60)
    assert ada.clusters()[0]["nodes"] == 1


def test_two_runs_of_one_project_at_once_make_one_cluster(product: Product, ada: Person):
    slug = ada.project("Twice")
    answers = at_once(*(lambda: ada.run(slug, project=slug, nodes=2) for _ in range(2)))
    assert sorted(a.status_code for a in answers)[0] in (201, 202), [a.text for a in answers]
    assert all(answer.status_code < 500 for answer in answers), [a.text for a in answers]
    wait_for(lambda: ada.is_ready(slug), "the cluster is ready", seconds=60)
    assert len(product.runs(ada.name)) == 1
    assert len([seen for seen in product.sightings() if seen.user == ada.name and seen.alive]) == 2


def test_ten_runs_at_once_under_a_limit_of_two_are_exactly_two(
    product: Product, person: Callable[..., Person]
):
    limited = person("couple")
    slugs = [limited.project(f"Race {number}") for number in range(10)]
    answers = at_once(*(lambda s=slug: limited.run(s, project=s) for slug in slugs))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 8, [(a.status_code, a.text) for a in answers]
    for answer in refused:
        assert answer.reason_phrase == "quota"
        assert "2" in answer.json()["message"]
    wait_for(lambda: sum(s["ready"] for s in limited.servers().values()) == 2, "two are ready", seconds=60)
    assert len(limited.clusters()) == 2
    assert len([seen for seen in product.sightings() if seen.user == limited.name and seen.alive]) == 2


def test_a_quota_says_which_how_much_is_used_and_what_was_asked(person: Callable[..., Person]):
    student = person("couple")
    slug = student.project("Too much")
    answer = student.run(slug, project=slug, nodes=3)
    assert (answer.status_code, answer.reason_phrase) == (429, "quota")
    assert "3" in answer.json()["message"] and "2" in answer.json()["message"]
    assert not student.clusters()


def test_a_server_cannot_be_renamed(ada: Person):
    slug = ada.running("Named")
    answer = ada.api("PATCH", f"/hub/api/users/{ada.name}/servers/{slug}", json={"name": "other"})
    assert 400 <= answer.status_code < 500, answer.text
    assert ada.is_ready(slug)
