"""What becomes of projects and data sets whose owner's account is deleted."""

from __future__ import annotations

from galilean.db import Database
from galilean.names import departed_name
from services.catalog import datasets, departed, lifecycle, links, shares, store
from services.catalog.access import Access, Viewer, access
from tests.catalog.people import ADMIN, ALICE, BOB, NOW, a_dataset, a_project, actor, to


def test_nobody_of_the_same_name_has_restores_or_finds_what_was_left(catalogue: Database) -> None:
    with catalogue.write() as conn:
        for name in ("private", "public", "used"):
            a_dataset(conn, "alice", name)
        public, used = (datasets.get(conn, "alice", name) for name in ("public", "used"))
        assert public
        assert used
        lifecycle.publish(conn, "dataset", public.id, actor=actor(), now=NOW)
        shares.give(conn, "dataset", used.id, to("bob"), actor=actor(), now=NOW)
        links.add(conn, BOB, a_project(conn, "bob"), used.id, now=NOW)
        binned = a_project(conn, "alice", "Old")
        store.delete(conn, binned, now=NOW)
        a_project(conn, "alice")

        gone = departed.delete_owned(conn, "alice", now=NOW)

        assert sorted(item.name for item in gone) == ["Heat flow", "private"]
        again = Viewer(name="alice")
        for kind in ("project", "dataset"):
            assert lifecycle.in_bin(conn, kind, "alice", now=NOW) == []
        for item_id in (public.id, used.id):
            left = datasets.by_id(conn, item_id)
            assert left is not None
            assert departed_name(left.owner) == "alice"
            assert access(again, left, kind="dataset") <= Access.READ
        # What others rest on stays theirs to read; an administrator may give it to somebody.
        assert access(BOB, datasets.by_id(conn, used.id), shares.of(conn, "dataset", used.id), kind="dataset")  # type: ignore[arg-type]
        old = store.by_id(conn, binned.id, deleted=True)
        assert old is not None
        assert access(again, old) == Access.NONE
        assert access(ADMIN, old) == Access.OWN
        # The name is free for the next alice, the same slug too.
        assert a_dataset(conn, "alice", "public").slug == "public"
        assert departed.delete_owned(conn, "alice", now=NOW)[0].name == "public"
        assert ALICE.name == "alice"
