"""Claims of deleted disks are taken away by the hub; what Kubernetes refuses stays to be deleted."""

from __future__ import annotations

from datetime import UTC, datetime

import kubespawner.clients
import pytest

import spawner.kubernetes.api
from galilean.db import Database
from hub_config import disk_claims
from services.catalog import disk_store
from services.catalog.shares import Actor
from spawner.kubernetes.api import APIError

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ACTOR = Actor(name="alice")


class Kubernetes:
    """The one verb that is used; ``away`` = it refuses."""

    def __init__(self) -> None:
        self.deleted: list[tuple[str, str]] = []
        self.away = False

    async def delete(self, kind: str, name: str) -> bool:
        if self.away:
            raise APIError(403, "no")
        self.deleted.append((kind, name))
        return True

    async def close(self) -> None:
        pass


async def test_what_was_deleted_is_taken_away_once_and_what_is_refused_later(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubernetes = Kubernetes()
    monkeypatch.setattr(kubespawner.clients, "load_config", lambda: None)
    monkeypatch.setattr(spawner.kubernetes.api, "KubeAPI", lambda namespace: kubernetes)
    ids = [f"01K{number:023d}" for number in range(2)]
    with db.write() as conn:
        for number, disk_id in enumerate(ids):
            disk_store.create(
                conn, disk_id=disk_id, owner="alice", name=f"d{number}", size_gib=1, pool="default",
                kept=0, most=None, actor=ACTOR, now=NOW,
            )  # fmt: skip
        disk_store.remove(conn, "alice", ids[0], actor=ACTOR, now=NOW)
    kubernetes.away = True
    with pytest.raises(APIError):
        await disk_claims.purge(db, "ns", lambda: NOW)
    with db.read() as conn:
        assert disk_store.to_purge(conn) == ids[:1]
    kubernetes.away = False
    for _ in range(2):
        await disk_claims.purge(db, "ns", lambda: NOW)
    assert kubernetes.deleted == [("PersistentVolumeClaim", f"galilean-disk-{ids[0].lower()}")]
    with db.read() as conn:
        assert [disk.id for disk in disk_store.listed(conn)] == ids[1:]
