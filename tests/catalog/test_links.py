"""Data sets in projects, what a run gets, and forks: in the database, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

from galilean.db import Database
from galilean.settings import Settings
from services.catalog import forks, lifecycle, links, shares, store
from services.catalog.access import Access, Viewer, access
from services.catalog.forking import Fork, KeptLink, plan_fork
from services.catalog.store import Project
from services.catalog.tables import cards
from tests.catalog.people import (
    ADMIN,
    ALICE,
    BOB,
    CAROL,
    NOW,
    a_dataset,
    a_project,
    actor,
    refused,
    to,
)


def fork_plan(conn: Any, viewer: Viewer, project: Project, **more: Any) -> Fork:
    level = access(viewer, project, shares.of(conn, "project", project.id))
    return plan_fork(viewer, project, level, links.links_of(conn, project.id), **more)


def test_two_data_sets_of_one_directory_are_refused_with_an_alias_that_does(catalogue: Database) -> None:
    with catalogue.write() as conn:
        project, mine, theirs = (
            a_project(conn),
            a_dataset(conn, mount="Io"),
            a_dataset(conn, "bob", mount="io"),
        )
        lifecycle.publish(conn, "dataset", theirs.id, actor=actor(BOB), now=NOW)
        links.add(conn, ALICE, project, mine.id, now=NOW)
        error = refused(409, lambda: links.add(conn, ALICE, project, theirs.id, now=NOW), "mount-taken")
        assert error.params["alias"] == "io-bob"
        added = links.add(conn, ALICE, project, theirs.id, now=NOW, mount=error.params["alias"])
        assert added.mount == "io-bob"
        refused(409, lambda: links.change(conn, ALICE, project, theirs.id, mount="IO"), "mount-taken")
        links.change(conn, ALICE, project, theirs.id, mount="IO-BOB")  # its own, in other letters
        refused(409, lambda: links.add(conn, ALICE, project, mine.id, now=NOW, mount="again"))
        refused(400, lambda: links.change(conn, ALICE, project, mine.id, mount="../x"))
        assert links.remove(conn, ALICE, project, theirs.id)
        assert not links.remove(conn, ALICE, project, theirs.id)


def test_a_run_gets_as_many_data_sets_as_a_project_may_have_and_one_more_is_refused(
    catalogue: Database, settings: Settings
) -> None:
    with catalogue.write() as conn:
        project = a_project(conn)
        some = [a_dataset(conn, mount=f"d{number}") for number in range(links.LINKS_MOST)]
        kept = tuple(KeptLink(dataset_id=one.id, mount=one.mount, writable=False) for one in some[1:])
        links.copy(conn, project.id, kept, person="alice", now=NOW)
        links.add(conn, ALICE, project, some[0].id, now=NOW)
        assert len(links.mounts_of_run(conn, settings, ALICE, project).mounts) == links.LINKS_MOST
        error = refused(
            409, lambda: links.add(conn, ALICE, project, a_dataset(conn, mount="more").id, now=NOW)
        )
        assert error.params["most"] == links.LINKS_MOST


def test_of_two_that_take_one_directory_at_once_the_second_is_told(catalogue: Database) -> None:
    with catalogue.write() as conn:
        project, first, second = a_project(conn), a_dataset(conn, mount="a"), a_dataset(conn, mount="b")
        for item in (first, second):
            links.add(conn, ALICE, project, item.id, now=NOW)
    answers: list[str] = []

    def also() -> None:
        with catalogue.write() as conn:
            error = refused(
                409, lambda: links.change(conn, ALICE, project, second.id, mount="Plan"), "mount-taken"
            )
            answers.append(error.params["alias"])

    other = threading.Thread(target=also)
    with catalogue.write() as conn:
        links.change(conn, ALICE, project, first.id, mount="plan")
        other.start()
        other.join(0.3)  # it may look now, while nothing is told yet; it has to wait
        assert answers == []
    other.join(20)
    assert len(answers) == 1
    with catalogue.write() as conn:
        links.change(conn, ALICE, project, second.id, mount=answers[0])
        assert {link.mount for link in links.links_of(conn, project.id)} == {"plan", answers[0]}


def test_nobody_takes_in_what_they_may_not_read_or_where_they_may_not_write(catalogue: Database) -> None:
    with catalogue.write() as conn:
        project, secret = a_project(conn), a_dataset(conn, "bob")
        refused(404, lambda: links.add(conn, ALICE, project, secret.id, now=NOW))
        refused(404, lambda: links.add(conn, ALICE, project, "01" * 13, now=NOW))
        lifecycle.publish(conn, "project", project.id, actor=actor(), now=NOW)
        project = store.by_id(conn, project.id)
        assert project
        for act in (
            lambda: links.add(conn, BOB, project, secret.id, now=NOW),
            lambda: links.remove(conn, BOB, project, secret.id),
            lambda: links.change(conn, BOB, project, secret.id, mount="x"),
        ):
            refused(403, act)
        shares.give(conn, "project", project.id, to("bob", "write"), actor=actor(), now=NOW)
        links.add(conn, BOB, project, secret.id, now=NOW, writable=True)
        refused(403, lambda: links.change(conn, ALICE, project, secret.id, writable=True))
        mine = a_dataset(conn)
        refused(404, lambda: links.change(conn, ALICE, project, mine.id, writable=True))


def test_a_run_gets_the_data_sets_that_its_person_may_read_at_this_moment(
    catalogue: Database, settings: Settings
) -> None:
    with catalogue.write() as conn:
        project, data = a_project(conn, "bob"), a_dataset(conn, name="Secret")
        shares.give(conn, "dataset", data.id, to("bob"), actor=actor(), now=NOW)
        links.add(conn, BOB, project, data.id, now=NOW)
        (mount,) = links.mounts_of_run(conn, settings, BOB, project).mounts
        assert mount.source == str(settings.volume_path("default") / "datasets" / data.id)
        assert (mount.target, mount.read_only) == ("datasets/secret", True)
        shares.withdraw(conn, "dataset", data.id, "person", "bob", actor=actor(), now=NOW)
        got = links.mounts_of_run(conn, settings, BOB, project)
        assert (got.mounts, got.missing) == ((), ("secret",))
        assert links.mounts_of_run(conn, settings, ALICE, project).mounts[0].read_only
        elsewhere = Settings.model_validate({"state": settings.state, "volumes": {"other": {}}})
        assert links.mounts_of_run(conn, elsewhere, ALICE, project).missing == ("secret",)


def test_a_fork_keeps_by_reference_what_the_person_may_read_and_tells_the_number_of_the_others(
    catalogue: Database, settings: Settings
) -> None:
    with catalogue.write() as conn:
        project = a_project(conn, default_request={"nodes": 2}, environment="gpu", description="Why")
        secret, public = a_dataset(conn, name="Secret"), a_dataset(conn, name="Open")
        lifecycle.publish(conn, "dataset", public.id, actor=actor(), now=NOW)
        for data in (secret, public):
            links.add(conn, ALICE, project, data.id, now=NOW, writable=True)
        refused(404, lambda: fork_plan(conn, BOB, project))
        lifecycle.publish(conn, "project", project.id, actor=actor(), now=NOW)
        project = store.by_id(conn, project.id)
        assert project
        plan = fork_plan(conn, BOB, project)
        assert (plan.left_out, [link.dataset_id for link in plan.links]) == (1, [public.id])
        assert not plan.links[0].writable
        fork = forks.make(conn, BOB, plan, volume_id="default", now=NOW)
        assert (fork.owner, fork.slug, fork.visibility, fork.busy) == (
            "bob",
            "heat-flow",
            "private",
            "copying",
        )
        assert (fork.forked_from, fork.default_request, fork.environment) == (project.id, {"nodes": 2}, "gpu")
        assert [link.id for link in links.links_of(conn, fork.id)] == [public.id]
        refused(409, lambda: fork_plan(conn, BOB, fork), "busy")
        forks.make(conn, BOB, plan, volume_id="default", now=NOW + timedelta(hours=1))
        uses = conn.execute(cards.select().where(cards.c.item_id == project.id)).one().uses
        assert uses == 1  # once per person and day
        refused(403, lambda: fork_plan(conn, Viewer(name="new", has_role=False), project), "role")
        # A duplicate of one's own keeps everything, and says so in its name.
        plan = fork_plan(conn, ALICE, project)
        assert (plan.left_out, plan.name, len(plan.links)) == (0, "Heat flow (2)", 2)
        assert all(link.writable for link in plan.links)
        # What was taken down is not brought back as a copy of it.
        lifecycle.take_down(conn, "project", project.id, reason="Exam", actor=actor(ADMIN), now=NOW)
        down = store.by_id(conn, project.id)
        assert down
        refused(403, lambda: fork_plan(conn, ALICE, down))
        assert fork_plan(conn, ADMIN, down).forked_from == project.id
        lifecycle.put_back(conn, "project", project.id, actor=actor(ADMIN), now=NOW)
        store.delete(conn, project, now=NOW)
        gone = store.by_id(conn, project.id, deleted=True)
        assert gone
        refused(409, lambda: fork_plan(conn, ALICE, gone))
        refused(404, lambda: fork_plan(conn, BOB, gone))


def test_the_tree_of_forks_shows_what_somebody_may_see_below_its_nearest_parent(catalogue: Database) -> None:
    with catalogue.write() as conn:
        root = a_project(conn)
        lifecycle.publish(conn, "project", root.id, actor=actor(), now=NOW)
        made = {"alice": root}
        for viewer, of in ((BOB, "alice"), (CAROL, "bob"), (ADMIN, "alice")):
            parent = store.by_id(conn, made[of].id)
            assert parent
            lifecycle.end(conn, "project", parent.id)
            lifecycle.publish(conn, "project", parent.id, actor=actor(), now=NOW)
            parent = store.by_id(conn, parent.id)
            assert parent
            plan = fork_plan(conn, viewer, parent)
            made[viewer.name] = forks.make(
                conn, viewer, plan, volume_id="default", now=NOW + timedelta(seconds=len(made))
            )
        lifecycle.unpublish(conn, "project", made["bob"].id, actor=actor(BOB), now=NOW)

        def shown(viewer: Viewer) -> list[tuple[str, int, str | None]]:
            tree = forks.tree(conn, viewer, root)
            names = {one.project.id: one.project.owner for one in tree}
            return [(one.project.owner, one.depth, names.get(one.parent or "")) for one in tree]

        assert shown(ADMIN) == [
            ("alice", 0, None),
            ("bob", 1, "alice"),
            ("carol", 2, "bob"),
            ("root", 1, "alice"),
        ]
        assert shown(CAROL) == [("alice", 0, None), ("carol", 1, "alice")]
        assert shown(ALICE) == [("alice", 0, None)]
        assert forks.origin(conn, CAROL, made["carol"]) is None
        assert (forks.origin(conn, BOB, made["bob"]) or root).id == root.id
        # What administrators see besides is not told to others by numbers either.
        assert access(ALICE, made["root"]) is Access.NONE


def test_used_by_names_only_projects_that_somebody_may_see(catalogue: Database) -> None:
    with catalogue.write() as conn:
        data = a_dataset(conn)
        lifecycle.publish(conn, "dataset", data.id, actor=actor(), now=NOW)
        mine, theirs = a_project(conn), a_project(conn, "bob")
        links.add(conn, ALICE, mine, data.id, now=NOW)
        links.add(conn, BOB, theirs, data.id, now=NOW)
        assert [one.owner for one in links.used_by(conn, ALICE, data.id)] == ["alice"]
        assert {one.owner for one in links.used_by(conn, ADMIN, data.id)} == {"alice", "bob"}
        assert links.used_by(conn, CAROL, data.id) == []
        uses = conn.execute(cards.select().where(cards.c.item_id == data.id)).one().uses
        assert uses == 1  # bob's; one's own are not counted
