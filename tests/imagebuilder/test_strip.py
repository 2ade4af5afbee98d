"""What never goes into an image is left out of a layer, and nothing else is touched."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extensions.imagebuilder.strip import Rules, Stripped, strip
from galilean.errors import UserError
from tests.imagebuilder.layers import directory, entry, layer, link, listed

RULES = Rules.of(["/home/a/work"], ["/etc/galilean/run"])


def stripped(*members, rules=RULES, format=tarfile.PAX_FORMAT, **more):
    return b"".join(strip(layer(*members, format=format), rules, **more))


GONE = [
    "home/a/.netrc",
    "root/.ssh/id_rsa",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/galilean/run",
    "etc/galilean/run/token",
    "home/a/work/data.csv",
    "home/a/work/.git/config",
    "tmp/.X1-lock",
    "home/a/.X1-lock",
    "tmp/x",
    "run/sshd.pid",
    "var/lib/dpkg/lock",
    "./tmp//x/../y",
]
KEPT = [
    "home/a/work2/x",
    "etc/ssh/sshd_config",
    "tmpx",
    "home/a/tmp/x",
    "home/a/.bash_history",
    "etc/galilean/runs",
]


@pytest.mark.parametrize("path", GONE)
def test_these_are_left_out(path):
    told = Stripped()
    assert list(listed(stripped(entry("a", b"x"), entry(path, b"secret"), entry("z", b"y"), told=told))) == [
        "a",
        "z",
    ]
    assert told.data_bytes == 6 and sum(told.entries.values()) == 1


@pytest.mark.parametrize("path", KEPT)
def test_their_neighbours_are_kept(path):
    assert list(listed(stripped(entry(path, b"x")))) == [path]


def test_history_is_left_out_when_asked():
    assert listed(stripped(entry("root/.bash_history", b"x"), rules=Rules.of(history=True))) == {}


def test_mount_points_and_temporary_places_stay_as_directories():
    names = ["tmp", "run", "home/a/work"]
    assert (
        list(listed(stripped(*map(directory, names), directory("tmp/x"), directory("home/a/work/y"))))
        == names
    )


def test_whiteouts_stay_but_not_a_file_that_is_only_called_so():
    assert list(
        listed(stripped(entry("tmp/.wh.x"), entry("run/.wh..wh..opq"), entry("tmp/.wh.y", b"data")))
    ) == [
        "tmp/.wh.x",
        "run/.wh..wh..opq",
    ]


PATHS = st.sampled_from(["a", "home/a/x", "usr/lib/" + "long" * 60, "ö/名", "b\udcff", *GONE])
MEMBERS = st.lists(
    st.builds(
        lambda path, content, uid, mtime, attribute: entry(
            path, content, uid=uid, mtime=mtime, pax_headers={"SCHILY.xattr.user.x": attribute}
        ),
        PATHS,
        st.binary(max_size=1500),
        st.integers(0, 1 << 31),
        st.floats(0, 1e9),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    ),
    max_size=6,
)


@given(MEMBERS, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_is_kept_keeps_every_byte(members, format, packed):
    expected = layer(*(m for m in members if m[0].name not in GONE), format=format).getvalue()
    value = b"".join(strip(layer(*members, format=format, packed=packed), RULES))
    assert value.rstrip(b"\0") == expected.rstrip(b"\0")
    assert value.endswith(bytes(1024))


def test_a_link_to_a_secret_is_the_secret():
    value = stripped(
        entry("home/a/.netrc", b"pw"), link("home/a/notes", "home/a/.netrc"), link("b", "home/a/notes")
    )
    assert listed(value) == {}


def test_a_name_that_is_a_link_to_a_kept_file_at_a_secret_place_goes_alone():
    assert list(listed(stripped(entry("a", b"x"), link("home/a/.netrc", "./a")))) == ["a"]


@pytest.mark.parametrize("long", ["lib.so", "n" * 180 + "/ö"])
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_the_first_kept_link_of_a_stripped_file_becomes_the_file(long, format):
    content = b"library" * 300
    names = [f"usr/lib/{long}", f"opt/{long}"]
    value = stripped(
        entry("tmp/build", content, uid=7, mode=0o4755, mtime=5),
        link("tmp/other", "tmp/build", uid=7),
        *(link(name, "tmp/other", uid=7, mode=0o4755, mtime=5) for name in names),
        entry("z", b"last"),
        format=format,
    )
    with tarfile.open(fileobj=io.BytesIO(value)) as tar:
        first, second, last = tar.getmembers()
        assert [first.name, second.name, last.name] == [*names, "z"]
        assert first.isreg() and (first.uid, first.mode, first.mtime) == (7, 0o4755, 5)
        assert second.islnk() and second.linkname == names[0]
        for member in (first, second):
            assert tar.extractfile(member).read() == content


def test_a_link_to_a_file_of_the_parent_in_a_temporary_place_is_kept():
    assert list(listed(stripped(link("usr/x", "tmp/of-the-parent")))) == ["usr/x"]
    assert listed(stripped(link("usr/x", "root/.netrc"))) == {}


def test_attributes_of_a_stripped_file_go_with_its_data():
    capability = "\x01\x00\x00\x02 =\n"
    value = stripped(
        entry("tmp/p", b"x", pax_headers={"SCHILY.xattr.security.capability": capability}),
        link("usr/bin/p", "tmp/p"),
    )
    assert listed(value)["usr/bin/p"].pax_headers["SCHILY.xattr.security.capability"] == capability


def test_more_than_can_be_set_aside_is_refused():
    with pytest.raises(UserError, match="set aside"):
        stripped(entry("tmp/a", b"x" * 600), entry("tmp/b", b"x" * 600), spool_bytes=1000)


def test_records_for_all_entries_outlive_the_stripped_one_they_stand_before():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uname": "ö"}) as tar:
        for name in ("tmp/x", "kept"):
            tar.addfile(tarfile.TarInfo(name))
    out.seek(0)
    assert listed(b"".join(strip(out, RULES)))["kept"].uname == "ö"
