"""Where files may come from and go to, and what becomes of their names; and the note."""

from __future__ import annotations

from pathlib import Path

import pytest

from extensions.desktop import files, notes


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    project = tmp_path / "volumes/project"
    project.mkdir(parents=True)
    made.mkdir()
    (made / "work").symlink_to(project)
    (tmp_path / "secret").write_text("no")
    return made


def test_work_leads_out_of_home_and_is_inside_all_the_same(home: Path) -> None:
    (home / "work/a.txt").write_text("x")
    assert files.inside(home, "work/a.txt") == home / "work/a.txt"
    assert files.inside(home, "") == home


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "work/../../secret", "~/x", "a\0b", "out", "out/passwd", "work/out"]
)
def test_nothing_outside_can_be_named(home: Path, path: str) -> None:
    (home / "out").symlink_to("/etc")
    (home / "work/out").symlink_to(home.parent / "secret")
    with pytest.raises(files.NotThere):
        files.inside(home, path)


def test_a_listing_has_folders_first_and_nothing_hidden(home: Path) -> None:
    for name in ("b.txt", ".hidden"):
        (home / "work" / name).write_text("12")
    (home / "work/z").mkdir()
    said = files.listing(home, "work")
    assert [(entry["name"], entry["folder"], entry["bytes"]) for entry in said["entries"]] == [
        ("z", True, None), ("b.txt", False, 2),
    ]  # fmt: skip
    assert said["path"] == "work"


def test_a_file_is_no_folder(home: Path) -> None:
    (home / "a").write_text("x")
    with pytest.raises(files.NotThere):
        files.listing(home, "a")


def test_a_second_file_of_a_name_gets_a_number_and_the_first_one_stays(home: Path) -> None:
    names = []
    for text in (b"1", b"2", b"3"):
        arriving = files.Arriving(home, "work", "a.tar.gz")
        arriving.write(text)
        names.append(arriving.finish())
    assert names == ["a.tar.gz", "a.tar (2).gz", "a.tar (3).gz"]
    assert (home / "work/a.tar.gz").read_bytes() == b"1"


def test_a_file_that_does_not_arrive_leaves_nothing(home: Path) -> None:
    arriving = files.Arriving(home, "work", "a")
    arriving.write(b"half")
    assert not (home / "work/a").exists()
    arriving.give_up()
    assert list((home / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a.txt", "a.txt"), ("C:\\dir\\a.txt", "a.txt"), ("../../a", "a"), (".bashrc", "bashrc"),
        ("数据 1.csv", "数据 1.csv"), ("a\nb", "ab"), ("长" * 100 + ".csv", "长" * 65 + ".csv"),
    ],
)  # fmt: skip
def test_a_name_becomes_one_that_a_file_may_have(name: str, kept: str) -> None:
    assert files.clean_name(name) == kept


@pytest.mark.parametrize("name", ["", "..", "/", "\0", "..."])
def test_a_name_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(files.NotThere):
        files.clean_name(name)


def test_a_note_is_a_file_of_the_project_and_empty_at_first(home: Path) -> None:
    text, known = notes.read(home)
    assert (text, known) == ("", "")
    known = notes.write(home, "# 笔记", known)
    assert notes.read(home) == ("# 笔记", known)
    assert (home / "work/notes.md").read_text() == "# 笔记"


def test_a_note_is_never_written_over_what_was_not_read(home: Path) -> None:
    known = notes.write(home, "one", "")
    (home / "work/notes.md").write_text("by JupyterLab")
    with pytest.raises(notes.Changed):
        notes.write(home, "two", known)
    assert (home / "work/notes.md").read_text() == "by JupyterLab"


def test_the_same_text_twice_is_no_conflict(home: Path) -> None:
    known = notes.write(home, "one", "")
    assert notes.write(home, "one", "") == known


def test_a_note_keeps_its_mode_and_its_link(home: Path) -> None:
    real = home / "work/elsewhere.md"
    real.write_text("a")
    real.chmod(0o640)
    (home / "work/notes.md").symlink_to(real)
    notes.write(home, "b", notes.read(home)[1])
    assert (home / "work/notes.md").is_symlink()
    assert real.read_text() == "b"
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_note_that_is_no_text_or_endless_is_not_shown(home: Path) -> None:
    (home / "work/notes.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError):
        notes.read(home)
    (home / "work/notes.md").write_bytes(b"a" * (notes.MOST_BYTES + 1))
    with pytest.raises(ValueError):
        notes.read(home)
