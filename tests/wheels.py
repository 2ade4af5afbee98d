"""Tiny wheels, and a folder of them as a package index; nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    files: Mapping[str, str] | None = None,
    requires: Iterable[str] = (),
) -> Path:
    """A wheel of one module of this name; ``files`` are in its place where they are said."""
    files = dict(files) if files is not None else {f"{name}.py": f'VERSION = "{version}"\n'}
    info = f"{name}-{version}.dist-info"
    need = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{need}"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return wheel


def unpack(wheel: Path, packages: Path, *, direct_url: str = "") -> None:
    """Install a wheel as an installer would, in no time."""
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / info / "INSTALLER").write_text("pip\n")
    (packages / info / "REQUESTED").write_text("")
    with open(packages / info / "RECORD", "a") as record:
        record.write(f"{info}/INSTALLER,,\n{info}/REQUESTED,,\n")
    if direct_url:
        (packages / info / "direct_url.json").write_text(direct_url)
