"""Administration → All environments: what the table tells, and what is done with many at once."""

from __future__ import annotations

import json
from typing import Any

import httpx
from sqlalchemy import select

from extensions.imagebuilder import store
from extensions.imagebuilder.entries import Actor
from galilean.tables import audit_log
from tests.portal.live import LiveSite
from tests.portal.test_environments import NOW, digest, docker, entry, names, page, sign

__all__ = ["docker", "sign"]


def act(docker: LiveSite, client: httpx.Client, act: str, *ids: str) -> httpx.Response:
    """Both steps: the question, then the act."""
    address, chosen = f"{docker.url}admin/environments/{act}", {"environment": list(ids)}
    asked = client.get(address, params=chosen)
    done = client.post(address, data=chosen)
    assert asked.status_code == done.status_code, asked.text[:300]
    return done


def test_each_tells_who_brought_it_what_it_needs_and_its_desktops_port(docker: LiveSite, sign: Any) -> None:
    start = {"interfaces": ["desktop"], "command": "vnc", "vnc": {"port": 5901}, "needs_gpu": True}
    entry(docker, "paint", "alice", start=start)
    retired = entry(docker)
    docker.write(store.retire, retired.id, True, actor=Actor(name="root"), now=NOW)
    text = page(docker, "root", "admin/environments")
    assert all(one in text for one in ("alice/paint", "port 5901", "GPU alone", ">Retired<", "galilean.yaml"))
    by_alice = page(docker, "root", "admin/environments?by=alice")
    assert "alice/paint" in by_alice and "Pytorch" not in by_alice and "galilean.yaml" not in by_alice
    gone = page(docker, "root", "admin/environments?scope=retired")
    assert "Pytorch" in gone and "alice/paint" not in gone
    page(docker, "alice", "admin/environments", status=403)


def test_many_are_retired_taken_up_again_and_deleted_at_once_and_one_that_cannot_is_told(
    docker: LiveSite, sign: Any
) -> None:
    ids = [entry(docker, slug).id for slug in ("one", "two", "three")]
    root = sign("root")
    assert act(docker, sign("alice"), "retire", *ids).status_code == 403
    assert act(docker, root, "retire").status_code == 400
    assert act(docker, root, "retire", *ids).status_code == 200
    assert set(names(root.get("/environments?scope=retired"))) == {"one", "two", "three"}
    act(docker, root, "restore", *ids[:2])
    assert names(root.get("/environments?scope=retired")) == ["three"]
    docker.cluster("bob", "Flow", environment_digest=digest("a"))
    with docker.portal.db.write() as conn:
        conn.exec_driver_sql("UPDATE clusters SET environment = 'two'")
    done = act(docker, root, "delete", *ids)
    told = json.loads(done.headers["HX-Trigger"])["galilean:toast"]
    assert told["tone"] == "bad" and told["text"].startswith("2 done. 1 not:"), told
    assert names(root.get("/environments?scope=everything")) == ["jupyter", "desk", "two"]
    noted = [row.action for row in docker.write(lambda conn: conn.execute(select(audit_log)).all())]
    assert noted.count("environment.retire") == 3 and noted.count("environment.delete") == 2


def test_asking_for_everything_shows_nobody_more_than_they_may_see(docker: LiveSite, sign: Any) -> None:
    entry(docker, "paint", "alice")
    assert "alice/paint" in names(sign("alice").get("/environments?scope=everything"))
    assert "alice/paint" not in names(sign("bob").get("/environments?scope=everything"))


def test_in_chinese_too(docker: LiveSite, sign: Any) -> None:
    entry(docker)
    text = sign("root", "zh-CN").get(f"{docker.url}admin/environments").text
    assert "带来者" in text
