"""A container's own changes become a layer: nothing lost, nothing hidden that was not deleted."""

from __future__ import annotations

import io
import tarfile

import pytest

from extensions.imagebuilder.strip import Rules
from extensions.imagebuilder.summary import Path, as_record, difference, preview
from extensions.imagebuilder.upper import layer_of
from galilean.errors import UserError
from tests.imagebuilder.layers import directory, entry, layer, link, listed


def made(
    *members: tuple[tarfile.TarInfo, bytes], deleted: tuple[str, ...] = ()
) -> dict[str, tarfile.TarInfo]:
    return listed(b"".join(layer_of(layer(*members), deleted)))


def gone(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, None, type=tarfile.CHRTYPE, devmajor=0, devminor=0)


def test_a_deleted_file_becomes_a_whiteout() -> None:
    found = made(directory("./usr"), gone("./usr/gone"))
    assert list(found) == ["./usr", "usr/.wh.gone"]
    assert found["usr/.wh.gone"].isreg() and found["usr/.wh.gone"].size == 0


def test_a_device_that_is_one_stays() -> None:
    assert made(entry("dev-null", None, type=tarfile.CHRTYPE, devmajor=1, devminor=3))["dev-null"].ischr()


def test_a_directory_that_was_deleted_and_made_anew_hides_what_the_image_had() -> None:
    found = made(directory("site"), entry("site/new", b"x"), deleted=("site",))
    assert "site/.wh..wh..opq" in found


def test_what_docker_alone_calls_deleted_is_deleted() -> None:
    assert ".wh.top" in made(directory("a"), deleted=("top", "/a/b"))
    assert "a/.wh.b" in made(directory("a"), deleted=("top", "/a/b"))


def test_a_file_that_was_made_anew_is_not_deleted() -> None:
    assert list(made(directory("a"), entry("a/b", b"new"), deleted=("a/b",))) == ["a", "a/b"]


def test_nobodys_file_says_that_another_is_gone() -> None:
    assert list(made(entry("home/.wh.passwd", b"x"), entry("home/y", b"y"))) == ["home/y"]


def test_every_other_byte_is_kept() -> None:
    members = (
        directory("d"),
        entry("d/" + "long" * 60, b"x" * 700, mtime=1.5),
        link("hard", "d/" + "long" * 60),
    )
    given = layer(*members)
    whole = given.getvalue()
    end = b"".join(layer_of(given, ())).rstrip(b"\0")
    assert whole.startswith(end)
    assert len(whole.rstrip(b"\0")) == len(end)


def test_a_long_deleted_name_is_told_whole() -> None:
    name = "x" * 150
    assert f"d/.wh.{name}" in made(directory("d"), deleted=(f"d/{name}",))


def test_an_archive_that_breaks_off_is_refused() -> None:
    whole = layer(entry("a", b"x" * 5000)).getvalue()
    with pytest.raises(UserError) as refused:
        list(layer_of(io.BytesIO(whole[:2000]), ()))
    assert refused.value.params["what"] == "ends early"


RULES = Rules.of(["/home/ada/work"], ["/home/ada/.galilean"])


def test_packages_are_told_by_their_names_before_anything_is_read() -> None:
    told = preview(
        [
            Path("var", 0),
            Path("var/lib/dpkg/info/libgl1:amd64.list", 1),
            Path("opt/venv/lib/python3.11/site-packages/timm-1.0.22.dist-info", 1),
            Path("opt/venv/lib/python3.11/site-packages/timm-1.0.22.dist-info/METADATA", 1),
            Path("opt/conda/conda-meta/numpy-2.1-py311_0.json", 1),
            Path("opt/conda/lib/python3.11/site-packages/numpy-2.1.dist-info", 1),
            Path("etc/motd", 2),
            Path("home/ada/.bashrc", 0),
            Path("home/ada/.galilean/ssh/key", 1),
            Path("home/ada/work/x", 1),
            Path("tmp/x", 1),
        ],
        RULES,
    )
    assert (told.apt, told.pip, told.conda) == (("libgl1",), ("timm 1.0.22",), ("numpy 2.1",))
    assert (told.added, told.changed, told.deleted) == (
        4,
        1,
        1,
    )  # directories with something in them do not count
    assert not told.empty


def test_a_node_on_which_nothing_was_done_has_changed_nothing() -> None:
    own = [
        Path("home", 0),
        Path("home/ada", 0),
        Path("home/ada/work", 1),
        Path("home/ada/.galilean", 1),
        Path("home/ada/.local/share/jupyter/runtime", 0),
        Path("home/ada/.local/share/jupyter/runtime/jpserver-7.json", 1),
        Path("run", 0),
    ]
    assert preview(own, RULES).empty


def test_sizes_and_debians_packages_are_told_when_it_was_read() -> None:
    before = "Package: bash\nStatus: install ok installed\nVersion: 5.2\n"
    after = before + "\nPackage: cowsay\nStatus: install ok installed\nVersion: 3.03\n"
    upper = layer(
        entry("var/lib/dpkg/status", after.encode()),
        entry("usr/games/cowsay", b"x" * 90),
        link("usr/games/moo", "usr/games/cowsay"),
        entry("home/ada/.galilean/secret", b"s"),
    )
    paths = [
        Path("var/lib/dpkg/status", 0),
        Path("usr/games/cowsay", 1),
        Path("usr/games/moo", 1),
        Path("etc/motd", 2),
    ]
    found = difference(upper, paths, before, RULES)
    assert [(one.manager, one.name, one.version) for one in found.packages_added] == [
        ("apt", "cowsay", "3.03")
    ]
    assert found.packages_removed == []
    assert dict(found.added) == {"usr/games/cowsay": 90, "usr/games/moo": 90}
    assert list(found.changed) == ["var/lib/dpkg/status"]
    assert list(found.deleted) == ["etc/motd"]
    assert as_record(found)["added"] == {
        "count": 2,
        "bytes": 180,
        "largest": [["usr/games/cowsay", 90], ["usr/games/moo", 90]],
    }
