"""A repository for apt and an index for pip, each a folder with one package: nothing is fetched from anywhere."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from tests.wheels import make_wheel

#: What the package of apt leaves, by a script that only root can run, and by itself.
APT_NAME, PIP_NAME = "heat", "warm"
ANSWER = "42"
_CONTROL = (
    "Package: heat\nVersion: 1.2\nArchitecture: all\nMaintainer: Ada <ada@example.edu>\nDescription: heat\n"
)


def package(directory: Path) -> Path:
    """A package for apt: a module in a directory of root's, and a script that must run as root."""
    tree = directory / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "opt/heat").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(_CONTROL)
    script = tree / "DEBIAN/postinst"
    script.write_text("#!/bin/sh\nset -e\nid -u > /opt/heat/uid\nchown 1000:1000 /opt/heat/uid\n")
    script.chmod(0o755)
    (tree / "opt/heat/heat.py").write_text(f"answer = {ANSWER}\n")
    made = directory / "heat.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(made)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return made


def repository(directory: Path, scratch: Path) -> None:
    """A flat repository of apt: ``deb [trusted=yes] file:DIRECTORY ./``."""
    content = package(scratch).read_bytes()
    directory.mkdir(parents=True)
    (directory / "heat.deb").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    told = f"{_CONTROL}Filename: ./heat.deb\nSize: {len(content)}\nSHA256: {digest}\n"
    (directory / "Packages").write_text(told)


def index(directory: Path) -> None:
    """An index of pip: ``pip install --index-url file://DIRECTORY warm``."""
    place = directory / PIP_NAME
    wheel = make_wheel(place, PIP_NAME, "2.0", files={f"{PIP_NAME}.py": f"answer = {ANSWER}\n"})
    (place / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
