"""What the node image for tests is made anew for; the layers themselves are doubles here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.lab import node_image

DAYS = 24 * 3600


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone and a cache of the test's own, with layers that need no network."""
    clone = tmp_path / "clone"
    for name in ("pyproject.toml", "requirements/run.txt", "spawner/__init__.py", "spawner/node/place.py"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(node_image.ROOT / name, clone / name)
    monkeypatch.setattr(node_image, "ROOT", clone)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for layer in ("_root_layer", "_python_layer"):
        monkeypatch.setattr(node_image, layer, lambda target: target.write_bytes(b""))
    return clone


def layers(archive: Path) -> list[str]:
    """Names of the layers, of which every digest is found right."""
    with tarfile.open(archive) as tar:
        read = {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry))}
    (image,) = json.loads(read["manifest.json"])
    assert image["RepoTags"] == [f"galilean.lab/node:{archive.parent.name}"]
    found = [f"sha256:{hashlib.sha256(read[name]).hexdigest()}" for name in image["Layers"]]
    assert json.loads(read[image["Config"]])["rootfs"]["diff_ids"] == found
    return image["Layers"]


def test_a_change_of_the_code_makes_the_code_layer_alone_anew(clone: Path) -> None:
    before = node_image.build_node_image()
    assert node_image.build_node_image() == before
    (clone / "spawner/node/place.py").write_text("changed = True\n")
    after = node_image.build_node_image()
    assert after != before
    assert [a == b for a, b in zip(layers(before), layers(after), strict=True)] == [True, True, False]


def test_a_change_of_the_lock_makes_the_packages_anew(clone: Path) -> None:
    before = node_image.build_node_image()
    with (clone / "requirements/run.txt").open("a") as lock:
        lock.write("\n")
    after = node_image.build_node_image()
    assert [a == b for a, b in zip(layers(before), layers(after), strict=True)] == [True, False, True]


def test_code_lies_where_the_nodes_python_looks_readable_by_all(clone: Path) -> None:
    (clone / "spawner/node/place.py").chmod(0o600)
    archive = node_image.build_node_image()
    (code,) = archive.parents[1].glob("code-*.tar")
    with tarfile.open(code) as tar:
        entry = tar.getmember("opt/galilean/lib/python3.11/site-packages/spawner/node/place.py")
    assert (entry.mode, entry.uid) == (0o644, 0)


def test_what_nobody_used_for_days_is_removed_and_what_is_used_stays(clone: Path) -> None:
    before = node_image.build_node_image()
    (clone / "spawner/node/place.py").write_text("changed = True\n")
    images = before.parents[1]
    for path in images.rglob("*.tar"):
        old = path.stat().st_mtime - 9 * DAYS
        os.utime(path, (old, old))
    after = node_image.build_node_image()
    assert not before.parent.exists()
    assert after.exists()
    assert sorted(path.name for path in images.glob("*.tar")) == sorted(layers(after))
