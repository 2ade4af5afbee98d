"""The lock file of a saved Python environment: read back exactly, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.errors import UserError
from spawner.process.lock import Lock, Pin, difference, normal

HASH = "sha256:" + "0a" * 32
LOCK = Lock(
    environment="jupyter",
    python="3.11",
    platform="linux/x86_64",
    below={"numpy": "2.1.0"},
    pins=(Pin("tiny", "1.0", (HASH,)), Pin("zed", "2!1.0+local.1", (HASH, "sha256:" + "1b" * 32))),
    installed_bytes=12,
)

names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
versions = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,2}){0,2}", fullmatch=True)


@given(st.dictionaries(names, versions, max_size=5), st.dictionaries(names, versions, max_size=5))
def test_what_is_written_is_read_again(below: dict[str, str], pins: dict[str, str]) -> None:
    lock = Lock(
        environment="jupyter",
        python="3.12",
        platform="linux/aarch64",
        below=below,
        pins=tuple(sorted(Pin(name, version, (HASH,)) for name, version in pins.items())),
    )
    assert Lock.parse(lock.text) == lock
    assert Lock.parse(lock.text).digest == lock.digest


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://ada:secret@index.example/simple",
        "-e /home/ada/tool",
        "tool @ https://index.example/tool.whl",
        "./tool.whl",
        "tool==1.0 --hash=md5:00",
        "tool==1.0 ; python_version < '4'",
        "-r /etc/passwd",
    ],
)
def test_no_option_address_or_path_gets_into_a_lock(line: str) -> None:
    with pytest.raises(UserError) as refused:
        Lock.parse(LOCK.text + line + "\n")
    assert refused.value.status == 422


def test_one_that_was_changed_is_none() -> None:
    for text in ("", LOCK.text + "\n", LOCK.text.replace("3.11", "2.7"), LOCK.text.replace("tiny", "Tiny")):
        with pytest.raises(UserError):
            Lock.parse(text)


@pytest.mark.parametrize(
    ("name", "version"), [("-e", "1"), ("a b", "1"), ("a", "1 --hash=x"), ("a", "../1"), ("", "1")]
)
def test_what_is_no_package_is_refused(name: str, version: str) -> None:
    with pytest.raises(ValueError, match="no package"):
        Pin(name, version)


def test_what_is_only_below_is_no_difference() -> None:
    found = difference({"a": "1", "b": "1"}, {"b": "2", "c": "1"})
    assert (dict(found.added), dict(found.changed)) == ({"c": "1"}, {"b": ("1", "2")})
    assert normal("Foo__Bar.baz") == "foo-bar-baz"
