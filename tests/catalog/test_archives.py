"""Projects as an archive: out of one site and into another, the same; and nothing of what is not right."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from galilean.db import Database, metadata
from galilean.errors import UserError
from galilean.settings import Settings
from services.catalog import covers, datasets, lifecycle, links, shares, store
from services.catalog.access import Share, Viewer
from services.catalog.archives import fitting, importing, planning, reading, writing
from services.catalog.archives.importing import Import, Outcome
from services.catalog.archives.planning import Choice, plan
from services.catalog.archives.writing import Packed
from services.catalog.resolver import prepare_directory
from services.catalog.shares import Actor
from services.catalog.store import Project
from services.catalog.tables import projects
from services.catalog.volumes import ensure_volumes
from services.files.progress import Cancelled, Progress
from services.files.root import Root
from services.files.unpacking import Limits
from tests.catalog.people import NOW
from tests.catalog.test_covers import png

ROOT = Actor(name="root")
NOTEBOOK = json.dumps(
    {"nbformat": 4, "nbformat_minor": 5, "cells": [], "metadata": {"kernelspec": {"name": "r-4"}}}
).encode()


@dataclasses.dataclass
class Site:
    """A database with a volume."""

    database: Database
    settings: Settings

    @property
    def volume(self) -> str:
        return next(iter(self.settings.volumes))

    def project(self, owner: str, name: str, files: dict[str, bytes] | None = None, **more: Any) -> Project:
        with self.database.write() as conn:
            made = store.create(conn, owner=owner, name=name, volume_id=self.volume, now=NOW, **more)
        path = prepare_directory(self.settings, made)
        for where, content in (files or {"work.txt": name.encode()}).items():
            (path / where).parent.mkdir(parents=True, exist_ok=True)
            (path / where).write_bytes(content)
        return made

    def dataset(self, owner: str, name: str) -> datasets.Dataset:
        with self.database.write() as conn:
            made = datasets.create(conn, owner=owner, name=name, volume_id=self.volume, now=NOW)
            lifecycle.publish(conn, "dataset", made.id, actor=ROOT, now=NOW)
        return made

    def archive(self, *chosen: Project, compress: bool = True) -> bytes:
        def packed() -> Iterator[Packed]:
            for project in chosen:
                with self.database.read() as conn:
                    found = store.by_id(conn, project.id)
                    assert found is not None
                    meta, cover = writing.meta_of(conn, found)
                yield Packed(meta=meta, root=Root(found.path(self.settings)), cover=cover)

        return b"".join(writing.write(packed(), count=len(chosen), site="Here", now=NOW, compress=compress))

    def bring_in(self, path: Path, choices: dict[int, Choice] | None = None, **more: Any) -> list[Outcome]:
        seen = reading.look(path).projects
        if choices is None:
            with self.database.read() as conn:
                planned = plan(conn, self.settings, seen, importer="root", is_known=lambda _name: True)
            choices = {one.seen.number: one.choice for one in planned}
        progress = more.pop("progress", None)
        work = Import(
            database=self.database,
            settings=self.settings,
            clock=lambda: NOW,
            volume_id=self.volume,
            actor=ROOT,
            **more,
        )
        return list(work.run(path, choices, progress))

    def get(self, owner: str, slug: str) -> Project:
        with self.database.read() as conn:
            found = store.get(conn, owner, slug)
        assert found is not None
        return found

    def path(self, project: Project) -> Path:
        return project.path(self.settings)

    def all(self) -> list[Any]:
        with self.database.read() as conn:
            return list(conn.execute(select(projects).where(projects.c.deleted_at.is_(None))))


def make_site(directory: Path) -> Site:
    directory.mkdir(parents=True, exist_ok=True)
    settings = Settings(state=directory)
    database = Database(settings.database_url)
    metadata.create_all(database.engine)
    with database.write() as conn:
        ensure_volumes(conn, settings, NOW)
    return Site(database, settings)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    site = make_site(tmp_path / "here")
    yield site
    site.database.close()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Site]:
    site = make_site(tmp_path / "there")
    yield site
    site.database.close()


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "projects.tar.gz"
        path.write_bytes(content)
        return path

    return write


def tree(path: Path) -> dict[str, Any]:
    """Everything below a folder: kind, permissions, content, time."""
    found: dict[str, Any] = {}
    for one in sorted(path.rglob("*")):
        name = str(one.relative_to(path))
        status = one.lstat()
        if one.is_symlink():
            found[name] = ("link", os.readlink(one))
        elif one.is_dir():
            found[name] = ("folder", status.st_mode & 0o777)
        else:
            found[name] = ("file", status.st_mode & 0o777, one.read_bytes(), round(status.st_mtime, 3))
    return found


def test_ten_projects_are_the_same_on_another_site(
    here: Site, there: Site, kept: Callable[[bytes], Path]
) -> None:
    made = []
    for number in range(10):
        project = here.project(
            f"person{number % 3}",
            f"热流 {number}",
            {
                "a.ipynb": NOTEBOOK,
                "数据/表 1.csv": os.urandom(70_000),
                "empty": b"",
                f"deep/er/{number}": b"x" * number,
            },
            description="Line one\nline two",
        )
        path = here.path(project)
        (path / "run.sh").write_text("#!/bin/sh\n")
        (path / "run.sh").chmod(0o755)
        (path / "nothing").mkdir()
        (path / "to-data").symlink_to("数据/表 1.csv")
        os.utime(path / "a.ipynb", (1_700_000_000, 1_700_000_000))
        made.append(project)
    with here.database.write() as conn:
        store.update(
            conn,
            made[0],
            now=NOW,
            field="physics",
            tags=("heat", "热"),
            default_request={"nodes": 2},
            readme="a.ipynb",
        )
    outcomes = there.bring_in(kept(here.archive(*made)))
    assert [(one.problem, one.left_out) for one in outcomes] == [(None, [])] * 10
    for project in made:
        old, new = here.get(project.owner, project.slug), there.get(project.owner, project.slug)
        assert tree(there.path(new)) == tree(here.path(old))
        ours = {"id", "directory", "volume_id", "measured_at", "size_bytes", "file_count"}
        left, right = dataclasses.asdict(old), dataclasses.asdict(new)
        assert {k: v for k, v in left.items() if k not in ours} == {
            k: v for k, v in right.items() if k not in ours
        }
        assert new.busy == ""
        assert new.file_count == 5


@pytest.mark.parametrize(
    ("said", "kept_as"),
    [
        ({"nodes": 2, "cpu_millicores": 1500, "memory_bytes": 2**30, "gpu": 0, "pool": "big"}, None),
        ({"cpu_millicores": "x"}, {}),
        ({"nodes": -1}, {}),
        ({"memory_bytes": [1]}, {}),
        ({"ports": 1}, {}),
        ({"cpu_millicores": 10**400}, {}),
    ],
)
def test_an_archive_gives_a_run_only_what_a_request_can_say(
    said: dict[str, Any], kept_as: dict[str, Any] | None
) -> None:
    assert importing._request(said) == (said if kept_as is None else kept_as)


def test_an_archive_without_gzip_is_the_same(here: Site, there: Site, kept: Callable[[bytes], Path]) -> None:
    project = here.project("ada", "Plain")
    plain = here.archive(project, compress=False)
    assert gzip.decompress(here.archive(project)) == plain
    assert there.bring_in(kept(plain))[0].problem is None


def test_it_is_a_tar_that_any_program_reads(here: Site, tmp_path: Path) -> None:
    project = here.project("ada", "Heat", {"a/b.txt": b"hello"})
    with tarfile.open(fileobj=io.BytesIO(here.archive(project))) as archive:
        assert archive.getnames() == [
            "galilean-archive.json",
            "projects/0001/project.json",
            "projects/0001/files/a",
            "projects/0001/files/a/b.txt",
            "projects/0001/manifest.json",
            "galilean-end.json",
        ]
        manifest = json.load(archive.extractfile("projects/0001/manifest.json"))  # type: ignore[arg-type]
    assert (
        manifest["files"][1]["sha256"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    )


def test_what_is_in_the_way_is_told_before_anything_is_made(
    here: Site, there: Site, kept: Callable[[bytes], Path]
) -> None:
    with_data = here.project("ada", "Heat", {"n.ipynb": NOTEBOOK})
    data = here.dataset("ada", "Weather")
    with here.database.write() as conn:
        links.add(conn, Viewer(name="ada"), with_data, data.id, now=NOW)
        conn.execute(update(projects).values(environment="fluids"))
    alone = here.project("nobody-here", "Other")
    there.project("ada", "Heat")
    path = kept(here.archive(with_data, alone))
    seen = reading.look(path).projects
    assert seen[0].kernels == ("r-4",)
    with there.database.read() as conn:
        first, second = plan(conn, there.settings, seen, importer="root", is_known=lambda name: name == "ada")
    assert [one.kind for one in first.conflicts] == ["slug", "environment", "dataset"]
    assert (first.choice.owner, first.slug) == ("ada", "heat-2")
    assert [one.kind for one in second.conflicts] == ["owner"]
    assert second.choice.owner == "root"
    assert len(there.all()) == 1
    outcomes = there.bring_in(path, {1: first.choice, 2: second.choice})
    assert [(one.owner, one.slug) for one in outcomes] == [("ada", "heat-2"), ("root", "other")]
    assert outcomes[0].left_out == ["~/datasets/weather"]
    assert there.get("ada", "heat-2").environment == ""


def test_a_data_set_that_is_there_is_used_again(
    here: Site, there: Site, kept: Callable[[bytes], Path]
) -> None:
    project = here.project("ada", "Heat")
    data = here.dataset("bob", "Weather")
    with here.database.write() as conn:
        links.add(conn, Viewer(name="ada"), project, data.id, now=NOW, mount="w")
    there.dataset("bob", "Weather")
    assert there.bring_in(kept(here.archive(project)))[0].left_out == []
    with there.database.read() as conn:
        assert [one.mount for one in links.links_of(conn, there.get("ada", "heat").id)] == ["w"]


def test_what_is_replaced_lies_in_the_bin(here: Site, there: Site, kept: Callable[[bytes], Path]) -> None:
    project = here.project("ada", "Heat", {"new.txt": b"new"})
    old = there.project("ada", "Heat", {"old.txt": b"old"})
    there.bring_in(kept(here.archive(project)), {1: Choice(action="replace", owner="ada")})
    new = there.get("ada", "heat")
    assert new.id != old.id
    assert set(tree(there.path(new))) == {"new.txt"}
    with there.database.write() as conn:
        assert store.restore(conn, old.id, now=NOW).slug == "heat-2"


def test_what_is_there_stays_when_the_one_before_it_cannot_go_to_the_bin(
    here: Site, there: Site, kept: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise UserError(503, "The volume is not there.")

    monkeypatch.setattr(importing, "to_bin", away)
    project = here.project("ada", "Heat", {"new.txt": b"new"})
    there.project("ada", "Heat", {"old.txt": b"old"})
    (outcome,) = there.bring_in(kept(here.archive(project)), {1: Choice(action="replace", owner="ada")})
    assert outcome.problem is not None
    assert set(tree(there.path(there.get("ada", "heat")))) == {"new.txt"}


def test_a_list_of_files_may_be_long(here: Site, there: Site, kept: Callable[[bytes], Path]) -> None:
    folder = "/".join([letter * 250 for letter in "abcdefghijkl"])
    project = here.project("ada", "Many", {f"{folder}/{number}.txt": b"x" for number in range(400)})
    (outcome,) = there.bring_in(kept(here.archive(project)))
    assert outcome.problem is None
    assert tree(there.path(there.get("ada", "many"))) == tree(here.path(project))


def test_nobody_waits_while_a_cover_is_taken_apart(
    here: Site, there: Site, kept: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, steps = png(), []
    project = here.project("ada", "Heat")
    with here.database.write() as conn:
        store.update(conn, project, now=NOW, cover=covers.keep(conn, covers.clean(picture)[0], now=NOW))
    path = kept(here.archive(here.get("ada", "heat")))
    clean, serialised = covers.clean, there.database.serialised
    monkeypatch.setattr(covers, "clean", lambda data: steps.append("cover") or clean(data))
    monkeypatch.setattr(
        there.database, "serialised", lambda *args, **more: steps.append("lock") or serialised(*args, **more)
    )
    there.bring_in(path)
    assert steps == ["lock", "cover", "lock"], "once for the row, once when all of it is there"
    assert there.get("ada", "heat").cover


def test_what_is_skipped_is_not_made(here: Site, there: Site, kept: Callable[[bytes], Path]) -> None:
    path = kept(here.archive(here.project("ada", "One"), here.project("ada", "Two")))
    outcomes = there.bring_in(path, {1: Choice(action="skip", owner="ada"), 2: Choice(owner="eve")})
    assert [(one.owner, one.slug) for one in outcomes] == [("eve", "two")]


def test_public_projects_are_private_unless_it_is_asked_for(
    here: Site, there: Site, kept: Callable[[bytes], Path]
) -> None:
    project = here.project("ada", "Heat")
    with here.database.write() as conn:
        lifecycle.publish(conn, "project", project.id, actor=ROOT, now=NOW)
    path = kept(here.archive(project))
    there.bring_in(path)
    there.bring_in(path, publish=True)
    assert [row.visibility for row in there.all()] == ["private", "public"]


def members_of(content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [(info, archive.extractfile(info).read() if info.isreg() else b"") for info in archive]  # type: ignore[union-attr]


def packed(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda content: packed(
        [(info, change(data) if info.name == name else data) for info, data in members_of(content)]
    )


def without(name: str) -> Callable[[bytes], bytes]:
    return lambda content: packed([one for one in members_of(content) if one[0].name != name])


def more(
    name: str, kind: bytes = tarfile.REGTYPE, to: str = "", before: str = "projects/0001/manifest.json"
) -> Any:
    def change(content: bytes) -> bytes:
        members = members_of(content)
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, to
        place = next(n for n, one in enumerate(members) if one[0].name == before)
        return packed(
            [*members[:place], (info, b"evil" if kind == tarfile.REGTYPE else b""), *members[place:]]
        )

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(changed("projects/0001/files/a.txt", lambda data: b"HELLO"), id="a file is another"),
        pytest.param(without("projects/0001/files/a.txt"), id="a file is missing"),
        pytest.param(without("projects/0001/manifest.json"), id="no list of files"),
        pytest.param(without("galilean-end.json"), id="no end"),
        pytest.param(without("galilean-archive.json"), id="no head"),
        pytest.param(changed("galilean-archive.json", lambda _: b'{"format":"other","version":1,"projects":1}'), id="another form"),
        pytest.param(changed("galilean-archive.json", lambda _: b'{"format":"galilean-projects","version":9,"projects":1}'), id="newer"),
        pytest.param(changed("galilean-archive.json", lambda d: d.replace(b'"projects": 1', b'"projects": 2')), id="fewer than said"),
        pytest.param(changed("projects/0001/project.json", lambda _: b"[]"), id="no project"),
        pytest.param(changed("projects/0001/project.json", lambda _: b"[" * 100_000), id="deep json"),
        pytest.param(changed("galilean-end.json", lambda d: d.replace(b'"0001"', b'"0002"')), id="wrong sums"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut off"),
        pytest.param(lambda content: gzip.decompress(content)[:4096], id="plain, cut off before the end"),
        pytest.param(lambda _: b"", id="nothing"),
        pytest.param(lambda _: b"PK\x03\x04 no tar", id="no tar"),
        pytest.param(more("projects/0001/files/../../x"), id="dots"),
        pytest.param(more("/etc/passwd"), id="absolute"),
        pytest.param(more("projects/0002/files/x"), id="of another project"),
        pytest.param(more("projects/0001/files/dev", tarfile.CHRTYPE), id="a device"),
        pytest.param(more("projects/0001/files/hard", tarfile.LNKTYPE, "projects/0001/files/a.txt"), id="a hard link"),
        pytest.param(more("projects/0001/files/extra"), id="a file nobody said"),
    ],
)  # fmt: skip
def test_what_is_not_right_is_refused_whole(
    here: Site, there: Site, kept: Callable[[bytes], Path], change: Callable[[bytes], bytes]
) -> None:
    path = kept(change(here.archive(here.project("ada", "Heat", {"a.txt": b"hello"}))))
    with pytest.raises(UserError) as refused:
        there.bring_in(path)
    assert refused.value.status == 400
    assert there.all() == []


def test_a_list_of_files_is_no_longer_than_the_files_explain(
    here: Site, there: Site, kept: Callable[[bytes], Path]
) -> None:
    padded = changed("projects/0001/manifest.json", lambda data: data[:-1] + b" " * (5 << 20) + data[-1:])
    path = kept(padded(here.archive(here.project("ada", "Heat", {"a.txt": b"hello"}))))
    with pytest.raises(UserError) as refused:
        there.bring_in(path)
    assert "manifest.json" in str(refused.value)


def test_an_archive_names_no_data_set_that_its_owner_may_not_read(here: Site) -> None:
    project, ada = here.project("ada", "Heat"), Viewer(name="ada")
    seen = here.dataset("bob", "Weather")
    with here.database.write() as conn:
        closed = datasets.create(conn, owner="bob", name="Secret plans", volume_id=here.volume, now=NOW)
        shares.give(
            conn, "dataset", closed.id, Share(grantee_kind="person", grantee="ada", access="read"),
            actor=ROOT, now=NOW,
        )  # fmt: skip
        for one in (seen, closed):
            links.add(conn, ada, project, one.id, now=NOW)
        assert len(writing.meta_of(conn, project, ada)[0].datasets) == 2
        shares.withdraw(conn, "dataset", closed.id, "person", "ada", actor=ROOT, now=NOW)
        meta, _ = writing.meta_of(conn, project, ada)
        assert [one.name for one in meta.datasets] == ["Weather"]
        assert len(writing.meta_of(conn, project)[0].datasets) == 2


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("compress", [True, False])
def test_an_archive_cut_off_anywhere_is_refused_in_words(
    here: Site, there: Site, kept: Callable[[bytes], Path], tenth: int, compress: bool
) -> None:
    files = {"a.bin": os.urandom(50_000), "b.bin": os.urandom(50_000)}
    whole = here.archive(here.project("ada", "Heat", files), compress=compress)
    path = kept(whole[: len(whole) * tenth // 10])
    with pytest.raises(UserError, match="cut off"):
        reading.look(path)
    work = Import(
        database=there.database,
        settings=there.settings,
        clock=lambda: NOW,
        volume_id=there.volume,
        actor=ROOT,
    )
    try:
        problems = [one.problem for one in work.run(path, {1: Choice(owner="ada")})]
    except UserError as error:
        problems = [error]
    assert [one and one.status for one in problems] == [400]
    assert there.all() == []


def forged(items: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """An archive of one project whose sums are all right, whatever its files are."""
    import hashlib

    lines, members = [], []
    for info, content in items:
        name = info.name
        info.name = f"projects/0001/files/{name}"
        kind = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link"}.get(info.type, "file")
        line = {"path": name, "kind": kind, "to": info.linkname if kind == "link" else ""}
        if kind == "file":
            line |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        lines.append(line)
        members.append((info, content))
    manifest = json.dumps({"files": lines}).encode()
    meta = {"id": "x", "owner": "ada", "slug": "heat", "name": "Heat"}
    end = {"projects": 1, "manifests": {"0001": hashlib.sha256(manifest).hexdigest()}}

    def said(name: str, value: Any) -> tuple[tarfile.TarInfo, bytes]:
        return tarfile.TarInfo(name), value if isinstance(value, bytes) else json.dumps(value).encode()

    return packed(
        [
            said("galilean-archive.json", {"format": "galilean-projects", "version": 1, "projects": 1}),
            said("projects/0001/project.json", meta),
            *members,
            said("projects/0001/manifest.json", manifest),
            said("galilean-end.json", end),
        ]
    )


def entry(name: str, content: bytes = b"x", *, to: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = (tarfile.SYMTYPE, to) if to else (tarfile.REGTYPE, "")
    return info, b"" if to else content


def test_names_and_links_that_lead_out_are_left_out(
    there: Site, kept: Callable[[bytes], Path], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    path = kept(
        forged(
            [
                entry("good.txt"),
                entry("../up.txt"),
                entry("a/../../up.txt"),
                entry("out", to=str(outside)),
                entry("out/inside.txt"),
                entry("back", to="../../../x"),
                entry("fine", to="good.txt"),
            ]
        )
    )
    (outcome,) = there.bring_in(path)
    assert outcome.problem is None
    files = tree(there.path(there.get("ada", "heat")))
    assert set(files) == {"good.txt", "fine", "out", "out/inside.txt"}
    assert files["out"][0] == "folder"
    assert list(outside.iterdir()) == []
    assert not list(tmp_path.rglob("up.txt"))


def test_a_bomb_ends_early_and_leaves_nothing(there: Site, kept: Callable[[bytes], Path]) -> None:
    path = kept(forged([entry("zeros", b"\0" * (80 << 20))]))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError) as refused:
        there.bring_in(path)
    assert refused.value.status == 413
    with pytest.raises(UserError, match="most that is taken"):
        reading.look(path, Limits(entries=0))


def test_many_projects_may_hold_more_together_than_one_may(
    here: Site, there: Site, kept: Callable[[bytes], Path]
) -> None:
    files = {f"{number}.bin": b"x" * 1000 for number in range(4)}
    path = kept(here.archive(*(here.project("ada", name, files) for name in ("One", "Two", "Three"))))
    few = Limits(entries=4, size_bytes=4000)
    assert [one.files for one in reading.look(path, few).projects] == [4, 4, 4]
    assert [one.problem for one in there.bring_in(path, limits=few)] == [None] * 3
    for too_few in (Limits(entries=3), Limits(size_bytes=3999)):
        with pytest.raises(UserError) as refused:
            reading.look(path, too_few)
        assert refused.value.status == 413


def test_what_an_import_would_refuse_is_told_before_it_goes_out(here: Site) -> None:
    project = here.project("ada", "Heat", {"a.bin": b"x" * 3000, "below/b.bin": b"x" * 1000})
    with here.database.read() as conn:
        meta, cover = writing.meta_of(conn, project)
    packed = Packed(meta=meta, root=Root(here.path(project)), cover=cover)
    assert list(fitting.check(packed, Limits(entries=3, size_bytes=4000))) == []
    for too_few, said in ((Limits(entries=2), "more than 2 files"), (Limits(size_bytes=3999), "more than 3")):
        with pytest.raises(UserError, match="ada/heat") as refused:
            list(fitting.check(packed, too_few))
        assert refused.value.status == 413
        assert said in str(refused.value)
    fitting.check_count(reading.PROJECTS_MOST)
    with pytest.raises(UserError, match="9999"):
        fitting.check_count(reading.PROJECTS_MOST + 1)


def test_what_packs_better_than_a_bomb_can_be_brought_in_again(
    here: Site, there: Site, kept: Callable[[bytes], Path]
) -> None:
    path = kept(here.archive(here.project("ada", "Zeros", {"zeros": b"\0" * (160 << 20)})))
    assert path.stat().st_size < 8 << 20
    with tarfile.open(path) as archive:
        assert archive.getmember("projects/0001/files/zeros").size == 160 << 20
    (outcome,) = there.bring_in(path)
    assert outcome.problem is None


def test_without_room_one_project_fails_and_the_others_are_made(
    here: Site, there: Site, kept: Callable[[bytes], Path]
) -> None:
    path = kept(here.archive(here.project("ada", "Large", {"x": b"x" * 5000}), here.project("bob", "Small")))
    first, second = there.bring_in(path, most_of=lambda owner: 1000 if owner == "ada" else None)
    assert first.problem is not None
    assert first.problem.status == 507
    assert (second.problem, second.slug) == (None, "small")
    assert [row.owner for row in there.all()] == ["bob"]
    assert len(list((there.settings.volume_path(there.volume) / "projects").iterdir())) == 1


def test_an_import_under_way_counts_as_what_it_will_be(
    here: Site, there: Site, kept: Callable[[bytes], Path]
) -> None:
    path = kept(here.archive(here.project("ada", "Large", {"x": b"x" * 5000})))
    used: list[int] = []
    others: list[Outcome] = []

    def second() -> None:
        with there.database.read() as conn:
            used.append(lifecycle.used_bytes(conn, "ada"))
        others.extend(there.bring_in(path, most_of=lambda _owner: 8000, sizes={1: 5000}))

    class Slow(Progress):
        def add(self, size_bytes: int, entries: int = 0) -> None:
            super().add(size_bytes, entries)
            if size_bytes and not used:
                second()

    (outcome,) = there.bring_in(path, most_of=lambda _owner: 8000, sizes={1: 5000}, progress=Slow())
    assert (outcome.problem, used) == (None, [5000])
    (other,) = others
    assert other.problem is not None
    assert "2.9" in str(other.problem), "the second sees the first"
    assert [row.size_bytes for row in there.all()] == [5000]


def test_one_that_is_ended_leaves_nothing_half(
    here: Site, there: Site, kept: Callable[[bytes], Path]
) -> None:
    path = kept(here.archive(here.project("ada", "One"), here.project("ada", "Two")))
    progress = Progress()
    progress.cancel()
    with pytest.raises(Cancelled):
        there.bring_in(path, progress=progress)
    assert there.all() == []


def test_nobody_runs_what_is_not_all_there(
    here: Site, there: Site, kept: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    finish = importing.Import._finish

    def spy(self: Import, *args: Any) -> list[str]:
        seen.extend(row.busy for row in there.all())
        return finish(self, *args)

    monkeypatch.setattr(importing.Import, "_finish", spy)
    there.bring_in(kept(here.archive(here.project("ada", "One"))))
    assert seen == ["importing"]


def test_what_a_dead_process_left_is_cleared_a_day_later(there: Site) -> None:
    project = there.project("ada", "Half")
    with there.database.write() as conn:
        conn.execute(update(projects).values(busy="importing"))
    assert importing.clear_broken_off(there.database, there.settings, NOW) == 0
    assert importing.clear_broken_off(there.database, there.settings, NOW + timedelta(days=2)) == 1
    assert there.all() == []
    assert not there.path(project).exists()


def test_a_name_that_is_no_address_gets_one(there: Site) -> None:
    seen = reading.Seen(number=1, meta=reading.ProjectMeta(id="x", owner="a", slug="Not A Slug", name="热流"))
    assert planning.wanted_slug(seen) == "re-liu"
