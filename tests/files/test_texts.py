"""Texts edited in a page: what others saved meanwhile is never lost, what nobody touched never changes."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galilean.errors import UserError
from services.files.root import Root
from services.files.texts import ALGORITHMS, checksum, make_file, read_text, write_text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a\nb\n",
        b"a\r\nb\r\n",
        b"\xef\xbb\xbfa\r\nb",
        "热流\n".encode(),
        b"a\rb",
        b"a\r\nb\n",
        b"\r\r\n",
    ],
)
def test_saving_what_was_read_changes_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t").write_bytes(data)
    read = read_text(Root(tmp_path), "t")
    write_text(Root(tmp_path), "t", read.text, version=read.version, crlf=read.crlf, bom=read.bom)
    assert (tmp_path / "t").read_bytes() == data


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
def test_any_text_comes_back(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").unlink(missing_ok=True)
    write_text(Root(tmp_path), "t", text, version=None)
    read = read_text(Root(tmp_path), "t")
    again = write_text(Root(tmp_path), "t", read.text, version=read.version, crlf=read.crlf, bom=read.bom)
    assert again.version == read.version
    assert (tmp_path / "t").read_bytes().decode() == text


def test_what_somebody_else_saved_meanwhile_is_not_lost(tmp_path: Path) -> None:
    root = Root(tmp_path)
    (tmp_path / "t").write_text("one")
    mine, theirs = read_text(root, "t"), read_text(root, "t")
    saved = write_text(root, "t", "theirs", version=theirs.version)
    with pytest.raises(UserError) as caught:
        write_text(root, "t", "mine", version=mine.version)
    assert (caught.value.status, caught.value.reason) == (409, "version")
    assert (tmp_path / "t").read_text() == "theirs"
    write_text(root, "t", "both", version=saved.version)
    (tmp_path / "t").unlink()
    with pytest.raises(UserError):
        write_text(root, "t", "mine", version=saved.version)
    assert os.listdir(tmp_path) == []
    make_file(root, "new")
    with pytest.raises(UserError):
        write_text(root, "new", "mine", version=None)


def test_of_many_who_save_at_once_exactly_one_does(tmp_path: Path) -> None:
    root = Root(tmp_path)
    (tmp_path / "t").write_text("start")
    version = read_text(root, "t").version

    def save(number: int) -> bool:
        try:
            write_text(root, "t", f"by {number}", version=version)
        except UserError as error:
            assert error.reason == "version"  # noqa: PT017
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(save, range(16))) == 1


@pytest.mark.parametrize(("data", "status"), [(b"\xff\xfe", 415), (b"a\0b", 415), (b"x" * 101, 413)])
def test_what_is_no_text_is_not_edited(tmp_path: Path, data: bytes, status: int) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_text(Root(tmp_path), "t", most_bytes=100)
    assert caught.value.status == status


def test_a_link_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tmp_path / "outside").write_text("secret")
    (tree / "t").symlink_to("../outside")
    with pytest.raises(UserError):
        read_text(Root(tree), "t")
    with pytest.raises(UserError):
        write_text(Root(tree), "t", "evil", version="0" * 32)
    assert (tmp_path / "outside").read_text() == "secret"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checksum_is_that_of_the_bytes(tmp_path: Path, algorithm: str) -> None:
    data = os.urandom((1 << 20) + 5)
    (tmp_path / "t").write_bytes(data)
    steps: list[int] = []
    assert (
        checksum(Root(tmp_path), "t", algorithm, step=steps.append)
        == hashlib.new(algorithm, data).hexdigest()
    )
    assert sum(steps) == len(data)
    with pytest.raises(UserError):
        checksum(Root(tmp_path), "t", "crc99")
