"""Room for what is on its way: what others have put aside is not given twice, and files that grow are noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from extensions.imagebuilder.space import Space
from galilean import disk_reserve
from galilean.errors import UserError

MB = 1 << 20


def folder(tmp_path: Path, name: str) -> Path:
    made = tmp_path / name
    made.mkdir()
    return made


def refusal(space: Space, place: Path, size_bytes: int) -> str:
    with pytest.raises(UserError) as refused, space.aside(place, size_bytes):
        pass
    return refused.value.reason


def test_two_saves_do_not_get_the_same_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_reserve, "free_bytes", lambda _: 1000 * MB)
    for space in (Space(tmp_path), Space(tmp_path, 1000 * MB)):
        first, second = folder(tmp_path, f"1-{id(space)}"), folder(tmp_path, f"2-{id(space)}")
        with space.aside(first, 300 * MB):
            assert refusal(space, second, 201 * MB) == "disk-full"
            with space.aside(second, 200 * MB):
                pass
        with space.aside(second, 400 * MB):
            pass


def test_what_was_written_of_what_is_put_aside_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_reserve, "free_bytes", lambda _: 1 << 50)
    space = Space(tmp_path, 100 * MB)
    first, second = folder(tmp_path, "1"), folder(tmp_path, "2")
    with space.aside(first, 25 * MB):
        (first / "changes.tar").write_bytes(b"x" * (20 * MB))
        with space.aside(second, 25 * MB):
            pass
        assert refusal(space, second, 26 * MB) == "disk-full"


def test_the_disk_is_looked_at_while_it_is_copied_and_again_when_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1 << 40
    asked = 0

    def free_bytes(_: Path) -> int:
        nonlocal asked
        asked += 1
        return free

    monkeypatch.setattr(disk_reserve, "free_bytes", free_bytes)
    space = Space(tmp_path)
    with space.aside(folder(tmp_path, "1"), MB) as enough:
        for done in range(0, 1 << 30, MB):
            enough(done)
        assert asked == 16  # once before, then after each 64 MB
        free = 0
        with pytest.raises(UserError) as refused:
            enough(MB)  # from the beginning
    assert refused.value.status == 507


def test_what_can_never_be_saved_is_no_full_disk(tmp_path: Path) -> None:
    assert refusal(Space(tmp_path), folder(tmp_path, "1"), 10 << 40) == "save-large"
    assert refusal(Space(tmp_path, 100 * MB), folder(tmp_path, "2"), 51 * MB) == "save-large"
    with Space(tmp_path, 100 * MB).aside(folder(tmp_path, "3"), MB) as enough:
        with pytest.raises(UserError) as refused:
            enough(51 * MB)
    assert refused.value.reason == "save-large"
