"""Files on their way to a build: nothing leads out of the project, and nothing stands in the place of what was checked."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from extensions.imagebuilder.build_context import IGNORED, OURS, rewrite
from galilean.errors import UserError


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size, found.mode = kind, link, size, 0o4777
    return found


def packed(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for one in members:
            archive.addfile(one, io.BytesIO(b"x" * one.size))
    return path


def opened(out: io.BytesIO) -> dict[str, tarfile.TarInfo]:
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        return {one.name: one for one in archive}


def test_what_leads_out_of_the_project_is_left_out_and_told(tmp_path: Path) -> None:
    link = tarfile.SYMTYPE
    source = packed(
        tmp_path / "c.tar",
        member("a", size=3), member("d", tarfile.DIRTYPE), member("d/in", link, "../a"),
        member("out", link, "/etc/passwd"), member("d/up", link, "../../x"), member("hard", tarfile.LNKTYPE, "/etc/shadow"),
        member("../climbs"), member("/absolute"), member("pipe", tarfile.FIFOTYPE),
    )  # fmt: skip
    out = io.BytesIO()
    left_out = rewrite(source, out, "FROM x\n", most_bytes=100)
    found = opened(out)
    assert set(found) == {"a", "d", "d/in", OURS, IGNORED}
    assert sorted(left_out) == ["../climbs", "/absolute", "d/up", "hard", "out", "pipe"]
    assert found["a"].mode == 0o777 and found["a"].uid == 0


def test_a_file_of_our_name_never_takes_the_place_of_the_checked_one(tmp_path: Path) -> None:
    source = packed(
        tmp_path / "c.tar", member(OURS, size=2), member(f"./{OURS}", size=2), member(IGNORED, size=1)
    )
    out = io.BytesIO()
    assert len(rewrite(source, out, "FROM checked\n", most_bytes=100)) == 3
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        assert archive.getnames() == [OURS, IGNORED]
        content = archive.extractfile(OURS)
        assert content is not None and content.read() == b"FROM checked\n"


def test_more_than_a_build_may_see_is_refused(tmp_path: Path) -> None:
    source = packed(tmp_path / "c.tar", member("a", size=60), member("b", size=60))
    with pytest.raises(UserError) as refused:
        rewrite(source, io.BytesIO(), "", most_bytes=100)
    assert refused.value.status == 413


def test_without_files_there_is_the_dockerfile_alone() -> None:
    out = io.BytesIO()
    assert rewrite(None, out, "FROM x\n", most_bytes=1) == []
    assert set(opened(out)) == {OURS, IGNORED}
