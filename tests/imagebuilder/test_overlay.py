"""What a container changed, read from overlayfs' own directories: on real mounts, and what is refused."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from extensions.imagebuilder import overlay
from extensions.imagebuilder.overlay import Overlay, Shorter, archive, changed, overlay_at
from extensions.imagebuilder.upper import layer_of
from galilean.errors import UserError

OFF = {"redirect_dir": False, "metacopy": False}


def line(options: str, place: str = "/b/c/rootfs", kind: str = "overlay") -> str:
    return f"36 35 0:50 / {place} rw,relatime shared:1 - {kind} overlay rw,{options}\n"


def test_the_table_of_mounts_tells_where_a_root_is_made_of() -> None:
    whole = line("lowerdir=/s/2/fs:/s/1/fs,upperdir=/s/3/fs,workdir=/s/3/work")
    found = overlay_at(line("x", "/b/d/rootfs") + whole, Path("/b/c/rootfs"), Path("/s"), OFF)
    assert found == Overlay(Path("/s/3/fs"), (Path("/s/2/fs"), Path("/s/1/fs")), Path("/b/c/rootfs"))
    short = line("lowerdir=2/fs:1/fs,upperdir=/s/3/fs,workdir=/s/3/work")
    assert overlay_at(short, Path("/b/c/rootfs"), Path("/s"), OFF) == found
    newer = line("lowerdir+=/s/2/fs,lowerdir+=/s/1/fs,upperdir=/s/3/fs")
    assert overlay_at(newer, Path("/b/c/rootfs"), Path("/s"), OFF) == found


@pytest.mark.parametrize(
    ("options", "by_default", "what"),
    [
        ("lowerdir=/s/1/fs,upperdir=/etc", OFF, "overlay: /etc is not below /s"),
        ("lowerdir=/s/1/fs,upperdir=/s/../etc", OFF, "overlay: /s/../etc is not below /s"),
        ("lowerdir=/s/1/fs:/root,upperdir=/s/3/fs", OFF, "overlay: /root is not below /s"),
        ("lowerdir=/s/1/fs,upperdir=/s/3/fs,metacopy=on", OFF, "metacopy=on"),
        ("lowerdir=/s/1/fs,upperdir=/s/3/fs,redirect_dir=on", OFF, "redirect_dir=on"),
        ("lowerdir=/s/1/fs,upperdir=/s/3/fs", {"redirect_dir": True}, "redirect_dir=on"),
        ("lowerdir=/s/1/fs", OFF, "overlay: no upperdir"),
        ("upperdir=/s/3/fs", OFF, "overlay: no lowerdir"),
        (r"lowerdir=/s/1\134:/fs,upperdir=/s/3/fs", OFF, "overlay: a name with a backslash"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(
    options: str, by_default: dict[str, bool], what: str
) -> None:
    with pytest.raises(UserError) as refused:
        overlay_at(line(options), Path("/b/c/rootfs"), Path("/s"), by_default)
    assert (refused.value.reason, refused.value.params["what"]) == ("driver", what)


def test_another_file_system_and_no_mount_are_told_apart() -> None:
    for mounts, reason in ((line("x", kind="btrfs"), "driver"), ("", "node-gone")):
        with pytest.raises(UserError) as refused:
            overlay_at(mounts, Path("/b/c/rootfs"), Path("/s"), OFF)
        assert refused.value.reason == reason


# -------------------------------------------------------------------------------------------------- on real mounts


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Overlay]:
    """A mounted root of two layers, as root alone may make it."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    low, middle = tmp_path / "1/fs", tmp_path / "2/fs"
    for folder in ("usr/lib", "opt/tool/inner", "etc", "home/jovyan"):
        (low / folder).mkdir(parents=True)
    (low / "usr/lib/a").write_text("a")
    (low / "opt/tool/old").write_text("old")
    (low / "opt/tool/inner/deep").write_text("deep")
    (low / "etc/passwd").write_text("root")
    (middle / "usr/lib").mkdir(parents=True)
    (middle / "usr/lib/b").write_text("b")
    os.mknod(middle / "usr/lib/a", 0o600 | 0o020000, os.makedev(0, 0))
    upper, work, merged = tmp_path / "3/fs", tmp_path / "3/work", tmp_path / "rootfs"
    for folder in (upper, work, merged):
        folder.mkdir(parents=True)
    options = f"lowerdir={middle}:{low},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off"
    done = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("overlayfs cannot be mounted here")
    try:
        yield overlay_at(Path("/proc/self/mountinfo").read_text(), merged, tmp_path, overlay.defaults())
    finally:
        subprocess.run(["umount", "-l", str(merged)], check=True)


def told(found: Overlay) -> dict[str, int]:
    return {one.path: one.kind for one in changed(found)[0]}


def layer(found: Overlay) -> dict[str, tarfile.TarInfo]:
    """The layer that comes of it, by names."""
    gone = {path for path, kind in told(found).items() if kind == 2}
    out = io.BytesIO()
    archive(found, out)
    out.seek(0)
    made = io.BytesIO(b"".join(layer_of(out, gone)))
    with tarfile.open(fileobj=made) as opened:
        return {one.name: one for one in opened}


def test_nothing_changed_is_nothing(ground: Overlay) -> None:
    assert changed(ground) == ([], 0)


def test_what_was_added_changed_and_deleted_is_told(ground: Overlay) -> None:
    root = ground.merged
    (root / "home/jovyan/new").write_text("x" * 5000)
    (root / "etc/passwd").write_text("other")
    (root / "usr/lib/b").unlink()
    kinds = told(ground)
    assert kinds["home/jovyan/new"] == 1
    assert kinds["etc/passwd"] == 0
    assert kinds["usr/lib/b"] == 2
    assert "usr/lib/a" not in kinds  # one of the image's layers deleted it, not the node
    assert changed(ground)[1] >= 5000
    names = layer(ground)
    assert {"home/jovyan/new", "etc/passwd", "usr/lib/.wh.b"} <= names.keys()
    assert names["home/jovyan/new"].size == 5000


def test_a_directory_that_was_deleted_and_made_anew_hides_what_the_image_had(ground: Overlay) -> None:
    root = ground.merged
    subprocess.run(["rm", "-r", str(root / "opt/tool")], check=True)
    (root / "opt/tool/inner").mkdir(parents=True)
    (root / "opt/tool/fresh").write_text("fresh")
    names = layer(ground)
    assert {"opt/tool/fresh", "opt/tool/.wh.old", "opt/tool/inner/.wh.deep"} <= names.keys()


def test_a_directory_that_was_only_touched_hides_nothing(ground: Overlay) -> None:
    (ground.merged / "opt/tool").chmod(0o700)
    (ground.merged / "usr/lib/more").write_text("more")
    names = layer(ground)
    assert not [name for name in names if ".wh." in name]
    assert names["opt/tool"].mode == 0o700


def test_links_owners_and_odd_names_are_kept(ground: Overlay) -> None:
    home = ground.merged / "home/jovyan"
    (home / "one").write_text("x")
    os.link(home / "one", home / "two")
    os.chown(home / "one", 1000, 1000)
    (home / "to").symlink_to("/etc/shadow")
    with open(os.fsencode(home) + b"/\xff", "w") as file:
        file.write("odd")
    os.mkfifo(home / "pipe")
    names = layer(ground)
    links = [names["home/jovyan/one"], names["home/jovyan/two"]]
    assert sorted(one.islnk() for one in links) == [False, True]
    assert all(one.uid == 1000 for one in links)
    assert names["home/jovyan/to"].linkname == "/etc/shadow"
    assert names["home/jovyan/\udcff"].size == 3


def test_a_link_out_of_the_root_is_never_followed(ground: Overlay, tmp_path: Path) -> None:
    """Also one that takes the place of a directory that the image has."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("theirs")
    root = ground.merged
    subprocess.run(["rm", "-r", str(root / "opt/tool")], check=True)
    (root / "opt/tool").symlink_to(tmp_path / "secret")
    (root / "home/jovyan/x").symlink_to(tmp_path / "secret")
    names = layer(ground)
    assert names["opt/tool"].issym()
    assert names["home/jovyan/x"].issym()
    assert not [name for name in names if "key" in name]


def test_a_file_that_becomes_shorter_is_noticed(ground: Overlay) -> None:
    big = ground.merged / "home/jovyan/big"
    big.write_bytes(b"x" * (3 << 20))

    def cut(done: int) -> None:
        if done > 1 << 20 and big.stat().st_size:
            os.truncate(ground.upper / "home/jovyan/big", 0)

    with pytest.raises(Shorter) as noticed:
        archive(ground, io.BytesIO(), progress=cut)
    assert noticed.value.path == "home/jovyan/big"


def test_a_file_counts_by_its_length_not_by_what_it_takes(ground: Overlay) -> None:
    (ground.merged / "home/jovyan/empty").touch()
    os.truncate(ground.merged / "home/jovyan/empty", 1 << 40)
    (ground.merged / "home/jovyan/small").write_text("x")
    assert (1 << 40) + 1 <= changed(ground)[1] < (1 << 40) + (1 << 20)


def test_a_file_that_becomes_longer_meanwhile_is_not_begun(ground: Overlay) -> None:
    (ground.merged / "home/jovyan/a").write_bytes(b"x" * 5000)
    (ground.merged / "home/jovyan/b").touch()

    def longer(_: int) -> None:
        os.truncate(ground.upper / "home/jovyan/b", 1 << 40)

    out = io.BytesIO()
    with pytest.raises(UserError) as refused:
        archive(ground, out, most_bytes=1 << 30, progress=longer)
    assert (refused.value.reason, refused.value.params["most"]) == ("save-large", 1 << 10)
    assert out.tell() < 1 << 20


def test_very_deep_directories_are_refused_not_followed_for_ever(ground: Overlay) -> None:
    folder = os.open(ground.merged / "home/jovyan", os.O_RDONLY)
    for _ in range(overlay.DEPTH_MOST + 5):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    with pytest.raises(UserError) as refused:
        changed(ground)
    assert refused.value.reason == "deep"


def test_more_names_than_memory_has_room_for_are_refused(
    ground: Overlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "NAMES_MOST", 20)
    for number in range(30):
        (ground.merged / f"home/jovyan/{number}").touch()
    with pytest.raises(UserError) as refused:
        changed(ground)
    assert (refused.value.status, refused.value.reason) == (422, "many")


def test_an_archive_is_written_without_holding_what_is_in_it(
    ground: Overlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        (ground.merged / f"home/jovyan/{number}").write_text("x")
    opened: list[tarfile.TarFile] = []
    real = tarfile.open
    monkeypatch.setattr(
        overlay.tarfile, "open", lambda *args, **more: opened.append(real(*args, **more)) or opened[-1]
    )
    held: list[int] = []
    archive(ground, io.BytesIO(), progress=lambda _: held.append(len(opened[0].members)))
    assert len(held) >= 30
    assert max(held) <= 1


def test_a_file_of_the_image_is_read_from_its_topmost_layer(ground: Overlay) -> None:
    assert overlay.image_file(ground, "usr/lib/b", most=10) == b"b"
    assert overlay.image_file(ground, "etc/passwd", most=10) == b"root"
    assert overlay.image_file(ground, "etc/passwd", most=2) == b""
    assert overlay.image_file(ground, "etc/none", most=10) == b""
