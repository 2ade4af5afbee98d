"""Secrets in a layer are found, wherever they are and however blocks are cut."""

import base64
import gzip
import io
import itertools
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extensions.imagebuilder import tarstream
from extensions.imagebuilder.secrets_scan import Finding, ValueSearch, require_clean, scan
from galilean.errors import UserError
from tests.imagebuilder.layers import Slowly, directory, entry, layer, link

TOKEN = b"0123456789abcdeffedcba9876543210"
SECRETS = {"token": TOKEN, "key": b"Zm9v-_short-one!"}


def found(*members, secrets=SECRETS, **more):
    return scan(layer(*members), secrets, **more)


@given(
    before=st.binary(max_size=100),
    after=st.binary(max_size=100),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    form=st.sampled_from(["plain", "base64", "urlsafe", "lines", "hex", "HEX", "utf16"]),
    name=st.sampled_from(sorted(SECRETS)),
)
@settings(max_examples=400, deadline=None)
def test_a_value_is_found_in_every_form_at_every_place_across_every_cut(before, after, cuts, form, name):
    whole = before + SECRETS[name] + after
    written = {
        "plain": lambda: whole,
        "base64": lambda: base64.b64encode(whole),
        "urlsafe": lambda: base64.urlsafe_b64encode(whole),
        "lines": lambda: base64.encodebytes(whole),
        "hex": lambda: before + SECRETS[name].hex().encode() + after,
        "HEX": lambda: before + SECRETS[name].hex().upper().encode() + after,
        "utf16": lambda: before + SECRETS[name].decode().encode("utf-16-le") + after,
    }[form]()
    search = ValueSearch(SECRETS)
    places = [0, *sorted(min(cut, len(written)) for cut in cuts), len(written)]
    for start, end in itertools.pairwise(places):
        search.feed(written[start:end])
    assert {what.partition(" ")[0] for _, what in search.hits} == {name}


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\n" + b" " * 12, b"\\\n\t"])
@pytest.mark.parametrize("form", ["base64", "hexadecimal"])
def test_a_secret_in_two_lines_is_found_wherever_it_begins_and_is_broken(form, between):
    """By itself: a shorter secret beside it would have every byte looked at."""
    written = base64.b64encode(TOKEN) if form == "base64" else TOKEN.hex().encode()
    missed = []
    for begin in range(24):
        for cut in range(1, len(written)):
            search = ValueSearch({"token": TOKEN})
            search.feed(b"-" * begin + written[:cut] + between + written[cut:] + b"-" * 24)
            if not search.hits:
                missed.append((begin, cut))
    assert not missed


def test_the_file_is_named_however_many_blanks_are_before_it():
    told = found(
        entry("home/blank", b" \n" * 3000),
        entry("home/lines", b" " * 500 + base64.encodebytes(b"x" * 40 + TOKEN)),
        entry("home/after", b" " * 5000),
        secrets={"token": TOKEN},
    )
    assert told == [Finding("home/lines", "value", "token (base64)")]


def test_a_secret_with_blanks_is_found_with_them_and_without():
    secrets = {"pass": b"correct horse battery staple"}
    for text in (b"correct horse battery staple", b"correct horse\n  battery staple"):
        assert found(entry("a", b"x" * 5 + text), secrets=secrets) == [Finding("a", "value", "pass")]


@given(st.binary(max_size=3000))
def test_what_holds_no_secret_is_clean(content):
    assert found(entry("home/a/notes", content), secrets=SECRETS) == []


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("most", [1, 511, 4096, 1 << 20])
def test_the_file_is_named_whatever_it_is_called_and_however_the_layer_arrives(packed, most):
    odd = "home/a/ \n\t名\udcff…/.x"
    value = layer(
        directory("home"),
        entry("home/first", b"x" * 3000),
        entry(odd, b"y" * 700 + TOKEN),
        entry("home/last", b"z"),
        packed=packed,
        format=tarfile.PAX_FORMAT if most != 511 else tarfile.GNU_FORMAT,
    ).getvalue()
    assert scan(Slowly(value, most), SECRETS) == [Finding(odd, "value", "token")]


def test_a_secret_in_a_name_a_link_or_an_attribute_is_found():
    name = TOKEN.decode()
    assert [f.path for f in found(entry(f"tmp/{name}"))] == [f"tmp/{name}"]
    assert [f.path for f in found(entry("a", None, type=tarfile.SYMTYPE, linkname=f"/x/{name}"))] == ["a"]
    attribute = entry("b", b"", pax_headers={"SCHILY.xattr.user.note": name})
    assert [f.path for f in found(attribute)] == ["b"]


def test_every_file_that_holds_one_is_told_once():
    told = found(entry("a", TOKEN * 3), link("c", "a"), entry("b", b"-" * 2_500_000 + TOKEN))
    assert told == [Finding("a", "value", "token"), Finding("b", "value", "token")]


def test_one_behind_the_end_of_the_archive_is_found():
    assert scan(io.BytesIO(layer(entry("a", b"x")).getvalue() + TOKEN + bytes(4096)), SECRETS)


def test_gzip_in_several_members_is_read_to_the_end():
    value = layer(entry("a", b"x"), entry("b", TOKEN)).getvalue()
    assert scan(io.BytesIO(gzip.compress(value[:700]) + gzip.compress(value[700:])), SECRETS)


@pytest.mark.parametrize(
    "path",
    [
        "root/.netrc",
        "home/a/.docker/config.json",
        "home/a/.git-credentials",
        "home/a/.aws/credentials",
        "home/a/.ssh/id_ed25519",
        "root/.local/share/jupyter/runtime/jupyter_cookie_secret",
        "./srv//x/../.pgpass",
    ],
)
def test_well_known_places_are_told_and_empty_ones_are_not(path):
    assert [(f.kind, f.sure) for f in found(entry(path, b"x"))] == [("place", True)]
    assert found(entry(path, b"")) == []


def test_history_is_told_only_when_asked():
    members = entry("home/a/.bash_history", b"ls\n")
    assert found(members) == []
    assert [f.kind for f in found(members, history=True)] == ["history"]


SHAPES = {
    "private key": b"-----BEGIN OPENSSH " + b"PRIVATE KEY-----\nb3BlbnNz",
    "cloud key": b"id = AKIA" + b"ABCDEFGHIJ234567\n",
    "access token": b"x=ghp_" + b"a1" * 18,
    "password in an address": b"url = https://me:" + b"s3cretpass@git.example.org/x",
}


@pytest.mark.parametrize("what", sorted(SHAPES))
def test_a_shape_outside_installed_software_is_a_secret(what):
    assert found(entry("home/a/x", SHAPES[what])) == [Finding("home/a/x", "shape", what)]


def test_a_key_in_installed_software_is_a_doubt_that_does_not_refuse():
    package = "opt/venv/lib/python3.11/site-packages/tornado/test/test.key"
    told = found(entry(package, SHAPES["private key"]))
    assert [f.sure for f in told] == [False]
    require_clean(told)


def test_what_only_speaks_of_keys_is_none():
    texts = b"grep 'PRIVATE KEY' https://example.org/@scope AKIAshort https://${USER}:${PASSWORD}@host"
    assert found(entry("home/a/readme", texts)) == []


def test_the_refusal_names_the_file_and_never_the_value():
    with pytest.raises(UserError) as refusal:
        require_clean(found(entry("home/a\udcff", TOKEN)))
    assert "/home/a\\udcff" in str(refusal.value) and TOKEN.decode() not in str(refusal.value)
    str(refusal.value).encode()


def test_a_value_too_short_to_be_told_from_chance_is_not_taken():
    with pytest.raises(ValueError, match="pin"):
        ValueSearch({"pin": b"123456"})


def test_a_bomb_ends_the_reading():
    bomb = gzip.compress(bytes(50_000_000), 9)
    with pytest.raises(UserError) as refusal:
        scan(io.BytesIO(layer(entry("a", b"")).getvalue()[:512] + bomb), SECRETS, limit_bytes=100)
    assert refusal.value.status == 413
    packed = layer(entry("zeros", bytes(50_000_000)), packed=True)
    with pytest.raises(UserError) as refusal:
        scan(packed, SECRETS, limit_bytes=10_000_000)
    assert refusal.value.status == 413


def test_memory_does_not_grow_with_the_file():
    packed = layer(entry("zeros", bytes(64 << 20)), packed=True)
    tracemalloc.start()
    try:
        scan(packed, SECRETS)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def sparse() -> bytes:
    """A GNU sparse file of a gigabyte: a map with a second block, 32 stored bytes."""
    info = tarfile.TarInfo("home/a/disk.img")
    info.type, info.size = b"S", len(TOKEN)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[482:483] = b"\1"
    header[483:495] = b"%011o\0" % (1 << 30)
    header[148:156] = b"%06o\0 " % tarstream.checksum(bytes(header))
    end = layer(entry("after", TOKEN)).getvalue()
    return bytes(header) + bytes(512) + TOKEN.ljust(512, b"\0") + end


def test_sparse_files_are_read_as_they_are_stored():
    assert [f.path for f in scan(io.BytesIO(sparse()), SECRETS)] == ["home/a/disk.img", "after"]


GOOD = layer(entry("a", b"x" * 600)).getvalue()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        GOOD[:600],
        GOOD[:100],
        b"not a layer" * 100,
        GOOD[:10] + b"!" + GOOD[11:],
        gzip.compress(GOOD)[:40],
        b"\x28\xb5\x2f\xfd" + bytes(600),
        layer(entry("../../etc/shadow", b"x")).getvalue(),
        layer(entry("a/../../b", b"x")).getvalue(),
        layer(entry("a" * 2_000_000, b"x")).getvalue(),
        layer(entry("a", pax_headers={"size": "-5"})).getvalue(),
    ],
)
def test_what_is_no_layer_is_refused_with_a_word(value):
    with pytest.raises(UserError) as refusal:
        scan(io.BytesIO(value), SECRETS)
    assert refusal.value.status == 422


def test_too_many_entries_are_refused():
    with pytest.raises(UserError, match="too many"):
        found(*(entry(str(i)) for i in range(11)), limit_entries=10)


@given(st.binary(max_size=1200), st.integers(0, 2000))
@settings(max_examples=200, deadline=None)
def test_no_bytes_make_it_fall_over(noise, at):
    value = bytearray(GOOD)
    value[at : at + len(noise)] = noise
    try:
        scan(io.BytesIO(bytes(value)), SECRETS)
    except UserError:
        pass
