"""Entries and saved images: who finds them, what a new version changes, what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from extensions.imagebuilder import entries, saved, store
from extensions.imagebuilder.entries import Actor, Grantee, Viewer
from extensions.imagebuilder.names import ImageName, Pinned
from extensions.imagebuilder.store import NewVersion, Wanted
from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from galilean.tables import audit_log
from tests.web.site import add_cluster

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ROOT, ADA = Actor(name="root", address="10.0.0.9"), Actor(name="ada")
DOCKER = Settings.model_validate({"backend": "docker", "docker": {"image": "node:1"}})


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def version(letter: str = "a", tag: str = "1", **more: Any) -> NewVersion:
    return NewVersion(
        tag=tag, image=f"registry.example.edu/x@{digest(letter)}", digest=digest(letter), **more
    )


def make(conn: Connection, slug: str = "pytorch", **more: Any) -> entries.Entry:
    values: dict[str, Any] = {
        "actor": ROOT,
        "owner": "",
        "title": slug.title(),
        "version": version(),
        "visibility": "public",
        "now": NOW,
        **more,
    }
    return store.create(conn, slug=slug, **values)


def names(conn: Connection, viewer: Viewer, **wanted: Any) -> list[str]:
    return [one.name for one in store.list_entries(conn, viewer, Wanted(**wanted), limit=50)]


def test_an_entry_is_kept_as_it_was_said_and_written_into_the_audit_log(db: Database) -> None:
    with db.write() as conn:
        start = entries.check_start(
            {"variables": {"PASSWORD": "hunter2"}, "ports": [8080], "needs_gpu": True},
            DOCKER,
            Viewer(name="x"),
        )
        made = make(conn, description=" For  training ", documentation="# Use\nit", field="ai", start=start)
        line = conn.execute(select(audit_log)).one()
    assert made.name == "pytorch"
    assert made.description == "For  training"
    assert made.documentation == "# Use\nit"
    assert made.gpu
    assert made.settings.image == made.version.image
    assert made.settings.ports == (8080,)
    assert (line.action, line.subject, line.actor) == ("environment.create", "pytorch", "root")
    assert line.after["start"]["variables"] == ["PASSWORD"]
    assert "hunter2" not in str(line.after)


def test_who_finds_an_entry(db: Database) -> None:
    with db.write() as conn:
        make(conn)
        make(conn, "paint", owner="ada", actor=ADA, visibility="own", version=version("b"))
        make(
            conn,
            "course",
            owner="ada",
            actor=ADA,
            visibility="group",
            shared_with=[Grantee("group", "ai-101"), Grantee("person", "eve")],
            version=version("c"),
        )
        assert names(conn, Viewer(name="ada")) == ["ada/course", "ada/paint", "pytorch"]
        assert names(conn, Viewer(name="bob")) == ["pytorch"]
        assert names(conn, Viewer(name="bob", groups=frozenset({"ai-101"}))) == ["ada/course", "pytorch"]
        assert names(conn, Viewer(name="eve"), scope="shared") == ["ada/course"]
        assert names(conn, Viewer(name="eve"), scope="own") == []
        assert names(conn, Viewer(name="root", manages=True)) == ["ada/course", "ada/paint", "pytorch"]
        offered = [one.name for one in store.offered(conn, Viewer(name="root", manages=True))]
        assert offered == ["pytorch"], "what an administrator may change is not all theirs to run"
        with pytest.raises(UserError) as caught:
            store.reach(conn, Viewer(name="bob"), "ada/paint")
        assert caught.value.status == 404
        with pytest.raises(UserError) as caught:
            store.reach(conn, Viewer(name="bob"), "pytorch", change=True)
        assert caught.value.status == 403


def test_an_owner_without_a_name_is_nobody(db: Database) -> None:
    with db.write() as conn:
        make(conn, visibility="group", shared_with=[Grantee("person", "eve")])
        assert names(conn, Viewer(name="")) == []


@pytest.mark.parametrize("text", ["PYTORCH", "train", "py 训练"])
def test_an_entry_is_found_by_words_in_any_case(db: Database, text: str) -> None:
    with db.write() as conn:
        make(conn, description="Training, 训练", start={"needs_gpu": True})
        make(conn, "desk", version=version("b"), start={"interfaces": ["desktop"]})
        viewer = Viewer(name="bob")
        assert names(conn, viewer, text=text) == ["pytorch"]
        assert names(conn, viewer, gpu=True) == ["pytorch"]
        assert names(conn, viewer, interface="desktop") == ["desk"]
        assert names(conn, viewer, text="100%") == []


def test_pages_follow_one_another_without_a_gap(db: Database) -> None:
    with db.write() as conn:
        for i in range(7):
            make(conn, f"e{i}", title="Same" if i % 2 else f"T{i}", version=version(str(i)))
        seen: list[str] = []
        after = None
        while True:
            page = store.list_entries(conn, Viewer(name="bob"), Wanted(), limit=3, after=after)
            seen += [one.name for one in page[:3]]
            if len(page) <= 3:
                break
            after = (entries.fold(page[2].title), page[2].id)
    assert sorted(seen) == [f"e{i}" for i in range(7)]


def test_a_new_version_is_what_new_runs_get_and_old_ones_stay(db: Database) -> None:
    with db.write() as conn:
        made = make(conn)
        run = add_cluster(conn, "bob", environment_digest=digest("a"), held=timedelta(0))
        conn.exec_driver_sql("UPDATE clusters SET environment = 'pytorch'")
        after = store.add_version(conn, made.id, version("b", "2"), actor=ROOT, now=NOW)
        assert (after.version.tag, after.version.number) == ("2", 2)
        assert [one.tag for one in store.versions(conn, made.id)] == ["2", "1"]
        (holder,) = store.holders(conn, "pytorch")
        assert (holder.run_id, holder.digest) == (run, digest("a"))
        assert store.uses(conn, ["pytorch", "none"])["pytorch"].open == 1
        with pytest.raises(UserError, match="Versions are never replaced"):
            store.add_version(conn, made.id, version("c", "1"), actor=ROOT, now=NOW)
        with pytest.raises(UserError, match="very image"):
            store.add_version(conn, made.id, version("b", "3"), actor=ROOT, now=NOW)
        assert store.use_version(conn, made.id, 1, actor=ROOT, now=NOW).version.tag == "1"
        with pytest.raises(UserError) as caught:
            store.remove(conn, made.id, actor=ROOT, now=NOW)
        assert caught.value.reason == "in-use"


def test_a_retired_entry_is_offered_to_nobody_and_comes_back(db: Database) -> None:
    viewer = Viewer(name="bob")
    with db.write() as conn:
        made = make(conn)
        store.retire(conn, made.id, True, actor=ROOT, now=NOW)
        assert names(conn, viewer) == []
        assert names(conn, viewer, scope="retired") == ["pytorch"]
        assert store.offered(conn, viewer) == []
        store.retire(conn, made.id, False, actor=ROOT, now=NOW)
        assert [one.name for one in store.offered(conn, viewer)] == ["pytorch"]


def test_a_name_is_free_again_once_its_entry_is_deleted(db: Database) -> None:
    with db.write() as conn:
        made = make(conn)
        with pytest.raises(UserError) as caught:
            make(conn)
        assert caught.value.reason == "taken"
        store.remove(conn, made.id, actor=ROOT, now=NOW)
        assert names(conn, Viewer(name="root", manages=True)) == []
        again = make(conn)
        assert again.id != made.id
        assert store.titles(conn) == {"pytorch": "Pytorch"}
        with pytest.raises(UserError) as caught:
            make(conn, "jupyter", reserved=["jupyter"])
        assert caught.value.reason == "taken"


def test_shares_end_with_the_word_for_them(db: Database) -> None:
    with db.write() as conn:
        made = make(
            conn,
            owner="ada",
            actor=ADA,
            visibility="group",
            shared_with=[Grantee("person", "eve")],
        )
        store.edit(conn, made.id, actor=ADA, now=NOW, visibility="own")
        assert store.grantees(conn, made.id) == []
        assert names(conn, Viewer(name="eve")) == []
        with pytest.raises(UserError):
            store.edit(conn, made.id, actor=ADA, now=NOW, visibility="group")


@pytest.mark.parametrize(
    ("start", "status"),
    [
        ({"python": "/usr/bin/python"}, 400),
        ({"image": "x"}, 400),
        ({"variables": {"JUPYTERHUB_API_TOKEN": "x"}}, 400),
        ({"ports": [80]}, 400),
        ({"interfaces": []}, 400),
        ({"sudo": True}, 403),
        ({"licences": [{"host": "flex.example.edu", "ports": [27000]}]}, 403),
        ({"licences": [{"host": "127.0.0.1", "ports": [27000]}]}, 400),
        ({"applications": {"a": {"title": "A", "command": "a"}}}, 400),
        ({"least_memory": "many"}, 400),
    ],
)
def test_start_options_that_cannot_be_are_refused(start: dict[str, Any], status: int) -> None:
    with pytest.raises(UserError) as caught:
        entries.check_start(start, DOCKER, Viewer(name="ada"))
    assert caught.value.status == status
    assert "{" not in caught.value.text()


FLEX: dict[str, Any] = {"licences": [{"host": "flex.example.edu", "ports": [27000, 27001]}]}


def test_an_owner_keeps_or_drops_the_licence_servers_they_were_given_and_never_changes_them() -> None:
    ada, root = Viewer(name="ada"), Viewer(name="root", manages=True)
    given = entries.check_start(FLEX, DOCKER, root)
    assert given == FLEX
    assert (
        entries.check_start({**FLEX, "ports": [8080]}, DOCKER, ada, before=given)["licences"]
        == FLEX["licences"]
    )
    assert entries.check_start({}, DOCKER, ada, before=given) == {}
    for ports in ([27000, 27001, 27002], [27000]):
        other = {"licences": [{"host": "flex.example.edu", "ports": ports}]}
        with pytest.raises(UserError, match="Only administrators may name licence servers"):
            entries.check_start(other, DOCKER, ada, before=given)


def test_not_even_an_administrator_opens_a_way_to_other_peoples_clusters() -> None:
    for host in (DOCKER.docker.address, "10.213.7.7"):
        with pytest.raises(UserError, match="belongs to the platform"):
            entries.check_start(
                {"licences": [{"host": host, "ports": [27000]}]}, DOCKER, Viewer(name="root", manages=True)
            )


def test_who_opened_which_way_stands_in_the_audit_log(db: Database) -> None:
    with db.write() as conn:
        made = make(conn)
        store.edit(conn, made.id, actor=ROOT, now=NOW, start=FLEX)
        store.edit(conn, made.id, actor=ROOT, now=NOW, start={})
        lines = conn.execute(select(audit_log).order_by(audit_log.c.id)).all()[1:]
    assert [(line.action, line.actor) for line in lines] == [("environment.edit", "root")] * 2
    assert lines[0].after["start"] == FLEX == lines[1].before["start"]


def test_sudo_is_the_centres_to_allow() -> None:
    with pytest.raises(UserError, match="allow_sudo"):
        entries.check_start({"sudo": True}, DOCKER, Viewer(name="root", manages=True))


def test_nobody_takes_a_name_from_anybody(db: Database) -> None:
    with db.write() as conn:
        a = make(conn, "paint", owner="ada", actor=ADA)
        b = make(conn, "paint", owner="Ada", actor=Actor(name="Ada"), version=version("b"))
        c = make(conn, "paint", version=version("c"))
    assert len({a.name, b.name, c.name}) == 3


# ---- saved images


def save(
    conn: Connection, text: str = "paint/tools:1", letter: str = "d", now: datetime = NOW
) -> saved.SavedImage:
    name = ImageName(*text.split(":"))
    begun = saved.begin(conn, actor=ADA, name=name, now=now, description="With ffmpeg", environment="jupyter")
    assert saved.progress(conn, begun.id, step="push", done_bytes=5, total_bytes=10)
    return saved.finish(
        conn,
        begun.id,
        image=Pinned("registry.example.edu", f"people/ada/{name.name}", digest(letter)),
        now=now,
        size_bytes=10,
        layers=3,
        platform="linux/amd64",
        log="done",
    )


def test_a_name_and_tag_is_saved_once_and_again_after_a_failure(db: Database) -> None:
    with db.write() as conn:
        first = saved.begin(conn, actor=ADA, name=ImageName("x", "1"), now=NOW)
        with pytest.raises(UserError) as caught:
            saved.begin(conn, actor=ADA, name=ImageName("x", "1"), now=NOW)
        assert caught.value.reason == "image-taken"
        saved.ask_cancel(conn, "ada", first.id, now=NOW)
        assert not saved.progress(conn, first.id, step="push")
        saved.cancelled(conn, first.id, now=NOW)
        again = saved.begin(conn, actor=ADA, name=ImageName("x", "1"), now=NOW)
        saved.fail(conn, again.id, error=UserError(507, "Full by {n}.", n=3), now=NOW)
        found = saved.get(conn, "ada", again.id)
        assert found.state == "failed"
        assert str(found.error) == "Full by 3."
        with pytest.raises(UserError):
            saved.finish(conn, again.id, image=Pinned("", "x", digest("a")), now=NOW)
        assert [one.id for one in saved.list_saved(conn, "ada")] == [again.id]
        assert saved.saving(conn) == []


def test_a_saved_image_is_its_owners_alone(db: Database) -> None:
    with db.write() as conn:
        made = save(conn)
        with pytest.raises(UserError) as caught:
            saved.get(conn, "bob", made.id)
        assert caught.value.status == 404
        with pytest.raises(UserError):
            saved.remove(conn, made.id, actor=Actor(name="bob"), now=NOW)
        assert saved.list_saved(conn, "bob") == []
        assert saved.describe(conn, made.id, "Better", actor=ADA, now=NOW).description == "Better"


def test_what_is_added_to_the_library_is_found_at_once_and_withdrawn(db: Database) -> None:
    bob = Viewer(name="bob", groups=frozenset({"ai-101"}))
    with db.write() as conn:
        made = save(conn)
        entry = saved.to_library(
            conn,
            made.id,
            actor=ADA,
            now=NOW,
            visibility="group",
            shared_with=[Grantee("group", "ai-101")],
            start={"ports": [8080]},
        )
        assert entry.name == "ada/paint-tools"
        assert saved.get(conn, "ada", made.id).added
        assert [one.name for one in store.offered(conn, bob)] == ["ada/paint-tools"]
        with pytest.raises(UserError) as caught:
            saved.remove(conn, made.id, actor=ADA, now=NOW)
        assert caught.value.reason == "image-added"
        with pytest.raises(UserError):
            saved.to_library(conn, made.id, actor=ADA, now=NOW)
        assert not saved.withdraw(conn, made.id, actor=ADA, now=NOW).added
        assert store.offered(conn, bob) == []
        again = saved.to_library(conn, made.id, actor=ADA, now=NOW, visibility="public")
        assert again.id == entry.id
        assert again.retired_at is None
        assert len(store.versions(conn, entry.id)) == 1


def test_a_second_tag_is_a_second_version_and_withdrawing_it_gives_the_first_back(db: Database) -> None:
    with db.write() as conn:
        first, second = save(conn), save(conn, "paint/tools:2", "e")
        entry = saved.to_library(conn, first.id, actor=ADA, now=NOW, visibility="public", title="Paint")
        after = saved.to_library(conn, second.id, actor=ADA, now=NOW, visibility="public")
        assert (after.id, after.version.tag, after.title) == (entry.id, "2", "Paint")
        saved.withdraw(conn, second.id, actor=ADA, now=NOW)
        left = store.by_name(conn, entry.name)
        assert left is not None
        assert left.version.tag == "1"
        assert left.retired_at is None


def test_an_image_of_which_a_cluster_is_held_cannot_be_deleted(db: Database) -> None:
    with db.write() as conn:
        made = save(conn)
        add_cluster(conn, "bob", environment_digest=digest("d"))
        with pytest.raises(UserError) as caught:
            saved.remove(conn, made.id, actor=ADA, now=NOW)
        assert caught.value.reason == "in-use"


def test_whoever_gets_the_name_of_somebody_deleted_owns_nothing_of_theirs(db: Database) -> None:
    with db.write() as conn:
        make(conn, "mine", owner="ada", actor=ADA, visibility="own")
        public = make(conn, "ours", owner="ada", actor=ADA, visibility="public", version=version("b"))
        make(conn, "theirs", visibility="group", shared_with=[Grantee("person", "ada")], version=version("c"))
        save(conn)
        store.forget_person(conn, "ada", "ada/01x", now=NOW)
        again = Viewer(name="ada")
        assert names(conn, again) == ["ada/ours"], "what everybody finds stays"
        assert names(conn, again, scope="own") == []
        with pytest.raises(UserError):
            store.reach(conn, again, public.id, change=True)
        assert saved.list_saved(conn, "ada") == []
