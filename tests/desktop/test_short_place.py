"""Short directories for sockets: whoever is killed leaves one, and the next one of the same account removes it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from extensions.desktop import short_place
from extensions.desktop.short_place import PREFIX, ShortPlace

MAKE = """
import sys, time
from extensions.desktop.short_place import ShortPlace
print(ShortPlace().path, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_of_this_account_alone_and_goes_with_what_is_in_it() -> None:
    made = ShortPlace()
    assert made.path.stat().st_mode & 0o777 == 0o700
    (made.path / "socket").touch()
    made.remove()
    assert not made.path.exists()
    made.remove()


def test_one_that_was_left_by_a_kill_goes_when_the_next_is_made_and_the_living_stay(temporary: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", MAKE],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        (theirs / "socket").touch()
        mine = ShortPlace()
        assert theirs.exists()
        other.kill()
        other.wait(20)
        another = ShortPlace()
        assert not theirs.exists()
        assert mine.path.exists()
        for made in (mine, another):
            made.remove()
    finally:
        other.kill()
        other.communicate()
    assert not list(temporary.iterdir())


def test_what_only_looks_like_one_stays(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    (temporary / f"{PREFIX}file").touch()
    ShortPlace().remove()
    assert {path.name for path in temporary.iterdir()} == {"elsewhere", f"{PREFIX}link", f"{PREFIX}file"}


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a directory of another account")
def test_another_accounts_stays(temporary: Path) -> None:
    theirs = temporary / f"{PREFIX}theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    ShortPlace().remove()
    assert theirs.exists()


def test_one_that_is_taken_for_abandoned_before_it_is_held_is_made_anew(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tempfile.mkdtemp

    def removed_at_once(prefix: str) -> str:
        monkeypatch.setattr(tempfile, "mkdtemp", make)
        path = make(prefix=prefix)
        short_place.remove_abandoned()
        assert not Path(path).exists()
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", removed_at_once)
    made = ShortPlace()
    assert made.path.exists()
    made.remove()
