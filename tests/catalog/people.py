"""People of the tests, what they make, and how a refusal is looked at."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from galilean.errors import UserError
from services.catalog import datasets, store
from services.catalog.access import Kind, Share, Viewer
from services.catalog.datasets import Dataset
from services.catalog.shares import Actor
from services.catalog.store import Project
from spawner.plan import DataUsed, Mount
from spawner.tables import clusters

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ALICE = Viewer(name="alice")
BOB = Viewer(name="bob", groups=frozenset({"physics"}))
CAROL = Viewer(name="carol")
ADMIN = Viewer(name="root", admin=True)
KINDS: tuple[Kind, ...] = ("project", "dataset")


def actor(viewer: Viewer = ALICE) -> Actor:
    return Actor(name=viewer.name, address="192.0.2.1")


def a_project(conn: Connection, owner: str = "alice", name: str = "Heat flow", **more: Any) -> Project:
    return store.create(conn, owner=owner, name=name, **{"volume_id": "default", "now": NOW, **more})


def a_dataset(conn: Connection, owner: str = "alice", name: str = "Io NIMS", **more: Any) -> Dataset:
    return datasets.create(conn, owner=owner, name=name, **{"volume_id": "default", "now": NOW, **more})


def a_thing(conn: Connection, kind: Kind, owner: str = "alice", **more: Any) -> Any:
    return (a_project if kind == "project" else a_dataset)(conn, owner, **more)


def to(grantee: str, access: str = "read", kind: str = "person") -> Share:
    return Share(grantee_kind=kind, grantee=grantee, access=access)  # type: ignore[arg-type]


def refused(status: int, act: Callable[[], Any], reason: str = "") -> UserError:
    with pytest.raises(UserError) as caught:
        act()
    assert caught.value.status == status, caught.value
    assert caught.value.reason == reason or not reason
    assert "{" not in caught.value.text()
    return caught.value


def run_of(conn: Connection, project: Project, user: str, run_id: str = "R1", **more: Any) -> str:
    """An open run of a project."""
    conn.execute(
        insert(clusters).values(
            id=run_id,
            user=user,
            server=project.server(user),
            project_id=project.id,
            project_owner=project.owner,
            project_slug=project.slug,
            project_name=project.name,
            environment="jupyter",
            backend="process",
            nodes=1,
            cpu_millicores=1000,
            memory_bytes=2**30,
            release_policy="auto",
            request={},
            status="running",
            asked_by=user,
            queued_at=NOW,
            **more,
        )
    )
    return run_id


def told(data: Dataset, *, read_only: bool = True) -> dict[str, Any]:
    """A data set as it stands in the row of a run that has it."""
    used = DataUsed(id=data.id, address=f"{data.owner}/{data.slug}", version=data.version)
    return used.told(Mount(source="", target=f"datasets/{data.mount}", read_only=read_only, data=used))
