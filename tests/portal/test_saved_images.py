"""Saved images from the first byte to their end, as pages and API tell it: state, size, log, description, added, deleted."""

from __future__ import annotations

from typing import Any

from extensions.imagebuilder import saved
from extensions.imagebuilder.changes import Changes
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import ImageName, Pinned
from extensions.imagebuilder.summary import as_record
from galilean.amounts import format_bytes
from tests.portal.live import LiveSite
from tests.portal.test_environments import NOW, digest, docker, page, sign

__all__ = ["docker", "sign"]


def test_how_far_a_save_is_is_seen_while_it_goes_on(docker: LiveSite, sign: Any) -> None:
    image = docker.write(saved.begin, actor=Actor(name="alice"), name=ImageName("tools", "1"), now=NOW).id
    docker.write(saved.progress, image, step="copying", done_bytes=30 << 20, total_bytes=90 << 20)
    told = sign("alice").get(f"/images/{image}").json()
    assert (told["state"], told["step"], told["done_bytes"]) == ("saving", "copying", 30 << 20)
    text = page(docker, "alice", f"images/{image}")
    assert "Saving image." in text and "Cancel saving" in text
    assert "tools:1" in page(docker, "alice", "images")
    docker.write(saved.cancelled, image, now=NOW, log="cancelled")
    assert "Cancelled. Nothing was kept." in page(docker, "alice", f"images/{image}")


def test_a_saved_image_has_size_log_a_description_to_edit_and_goes_when_it_is_deleted(
    docker: LiveSite, sign: Any
) -> None:
    alice = sign("alice")
    image = docker.write(saved.begin, actor=Actor(name="alice"), name=ImageName("tools", "1"), now=NOW).id
    made = Pinned("registry.example.edu", "people/alice/tools", digest("d"))
    changes = as_record(Changes({"opt/tool": 9}, {}, {}, [], [])) | {"packed_bytes": 1 << 20}
    more: dict[str, Any] = {"size_bytes": 3 << 20, "layers": 4, "log": "copied 3 files", "changes": changes}
    docker.write(saved.finish, image, image=made, now=NOW, **more)
    text = page(docker, "alice", f"images/{image}")
    assert "copied 3 files" in text and format_bytes(3 << 20) in text and "4 layers" in text
    answer = alice.patch(f"/images/{image}", json={"description": "Heat flow"})
    assert (answer.status_code, answer.json()["description"]) == (200, "Heat flow")
    assert "Heat flow" in page(docker, "alice", f"images/{image}")
    assert sign("bob").patch(f"/images/{image}", json={"description": "mine"}).status_code == 404
    assert "In the library" not in text
    assert alice.put(f"/images/{image}/library", json={"visibility": "own"}).status_code == 200
    assert "In the library" in page(docker, "alice", f"images/{image}")
    assert alice.delete(f"/images/{image}").status_code == 409  # a new run would find nothing
    assert alice.delete(f"/images/{image}/library").status_code == 204
    assert alice.delete(f"/images/{image}").status_code == 204
    assert "tools:1" not in page(docker, "alice", "images")
