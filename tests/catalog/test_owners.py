"""A project that changes hands, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, update

from galilean.db import Database
from galilean.errors import UserError
from services.catalog import datasets, links, owners, search, shares, store
from services.catalog.access import Share, Viewer
from services.catalog.search import Wanted
from services.catalog.shares import Actor
from services.catalog.tables import projects, volumes

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ROOT = Actor(name="root")


def project(conn: Connection, owner: str, name: str = "Heat flow") -> store.Project:
    return store.create(conn, owner=owner, name=name, volume_id="default", now=NOW)


@pytest.fixture
def ready(db: Database) -> Database:
    with db.write() as conn:
        conn.execute(
            volumes.insert().values(id="default", kind="directory", path="/srv/galilean", created_at=NOW)
        )
    return db


def test_it_is_the_others_with_its_id_shares_and_links(ready: Database) -> None:
    with ready.write() as conn:
        mine, theirs = project(conn, "alice"), project(conn, "bob")
        for person, given in (("bob", "read"), ("carol", "write")):
            share = Share(grantee_kind="person", grantee=person, access=given)
            shares.give(conn, "project", mine.id, share, actor=ROOT, now=NOW)
        data = datasets.create(conn, owner="alice", name="Data", volume_id="default", now=NOW)
        links.add(conn, Viewer(name="alice"), mine, data.id, now=NOW, writable=True)
        after = owners.give_to(conn, mine, "bob", actor=ROOT, now=NOW)
        assert (after.id, after.owner, after.slug) == (mine.id, "bob", theirs.slug + "-2")
        assert [share.grantee for share in shares.of(conn, "project", mine.id)] == ["carol"]
        assert [link.writable for link in links.links_of(conn, mine.id)] == [False]
        found = search.search(conn, Viewer(name="bob"), Wanted(kind="project"), scope="mine").items
        assert {card.item_id for card in found} == {mine.id, theirs.id}
        assert store.get(conn, "alice", mine.slug) is None
        assert owners.give_to(conn, after, "bob", actor=ROOT, now=NOW).slug == after.slug


def test_not_while_its_files_are_copied_nor_when_it_was_deleted(ready: Database) -> None:
    with ready.write() as conn:
        mine = project(conn, "alice")
        conn.execute(update(projects).where(projects.c.id == mine.id).values(busy="copying"))
        with pytest.raises(UserError) as refused:
            owners.give_to(conn, mine, "bob", actor=ROOT, now=NOW)
        assert refused.value.status == 409
        conn.execute(update(projects).where(projects.c.id == mine.id).values(busy="", deleted_at=NOW))
        with pytest.raises(UserError) as refused:
            owners.give_to(conn, mine, "bob", actor=ROOT, now=NOW)
        assert refused.value.status == 404
