"""The last of a disk is nobody's: who asks, who is told while they write, and what the kernel's own refusal becomes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from galilean import disk_reserve
from galilean.disk_reserve import ASK_EVERY_BYTES, RESERVE_BYTES
from galilean.errors import UserError


def disk(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    class Place:
        f_bavail, f_frsize = free_bytes // 4096, 4096

    monkeypatch.setattr(os, "statvfs", lambda _: Place)


@pytest.mark.parametrize(("free", "fits"), [(0, False), (RESERVE_BYTES, False), (RESERVE_BYTES + 8192, True)])
def test_what_would_take_of_the_reserve_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    disk(monkeypatch, free)
    if fits:
        disk_reserve.need(tmp_path, 8192)
    with pytest.raises(UserError) as refused:
        disk_reserve.need(tmp_path, 8193)
    assert (refused.value.status, refused.value.reason) == (507, "disk-full")


def test_who_writes_is_asked_now_and_then_and_told_while_the_reserve_is_still_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, RESERVE_BYTES + ASK_EVERY_BYTES)
    at = disk_reserve.watch(tmp_path)
    at(ASK_EVERY_BYTES)
    disk(monkeypatch, RESERVE_BYTES)
    at(2 * ASK_EVERY_BYTES - 1)
    with pytest.raises(UserError):
        at(2 * ASK_EVERY_BYTES)


def test_the_kernels_refusal_is_told_in_the_same_words_and_others_pass(tmp_path: Path) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(UserError) as refused, disk_reserve.in_words(tmp_path):
            raise OSError(number, "full")
        assert refused.value.reason == "disk-full"
    with pytest.raises(PermissionError), disk_reserve.in_words(tmp_path):
        raise PermissionError
