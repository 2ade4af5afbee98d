"""Layers made for tests."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import Any


def entry(name: str, content: bytes | None = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A file; with ``type`` anything else."""
    info = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    info.size = len(content or b"") if info.isreg() or "type" not in more else 0
    return info, content or b""


def directory(name: str, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, None, type=tarfile.DIRTYPE, mode=0o755, **more)


def link(name: str, target: str, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, None, type=tarfile.LNKTYPE, linkname=target, **more)


def layer(
    *members: tuple[tarfile.TarInfo, bytes], packed: bool = False, format: int = tarfile.PAX_FORMAT
) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content) if info.size else None)
    value = out.getvalue()
    return io.BytesIO(gzip.compress(value, 1) if packed else value)


def listed(value: io.BytesIO | bytes) -> dict[str, tarfile.TarInfo]:
    stream = io.BytesIO(value) if isinstance(value, bytes) else value
    with tarfile.open(fileobj=stream) as tar:
        return {member.name: member for member in tar.getmembers()}


class Slowly(io.BytesIO):
    """Gives as many bytes a time as it was told, as a network does."""

    def __init__(self, value: bytes, most: int) -> None:
        super().__init__(value)
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(self._most, self._most if size is None or size < 0 else size))
