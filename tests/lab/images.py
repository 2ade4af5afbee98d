"""Images for the lab: those of this clone, as everybody builds them, and some made of one static program.

All are docker archives that containerd imports; the lab needs no registry.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


@functools.cache
def built(name: str) -> tuple[str, Path]:
    """Reference and archive of ``images/<name>`` of this clone; built if it is not there (minutes, once).

    The same script and the same Containerfile as ``make images``, on a base made here from Debian's packages.
    One test run has one image, though somebody may be writing in the clone meanwhile.
    """
    command = [sys.executable, str(ROOT / "scripts" / "images.py"), name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    _, reference, archive = done.stdout.strip().split("\t")
    return reference, Path(archive)


def reference(archive: Path) -> str:
    """The name by which pods ask for the image in a docker archive."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        return str(json.loads(manifest.read())[0]["RepoTags"][0])


def load(directory: Path, archive: Path) -> str:
    """Bring an archive into the lab at ``directory`` where it is not there yet; returns its reference."""
    name = reference(archive)
    ctr = ["ctr", "--address", str(directory / "containerd.sock"), "--namespace", "k8s.io", "images"]
    there = subprocess.run(
        [*ctr, "list", "-q", f"name=={name}"], capture_output=True, text=True, check=True, timeout=240
    )
    if not there.stdout.strip():
        subprocess.run([*ctr, "import", str(archive)], capture_output=True, check=True, timeout=900)
    return name


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def static_image(program: Path, reference: str, target: Path, files: dict[str, bytes] | None = None) -> None:
    """Write an image whose entry point is ``program`` (and some files beside it) to ``target``."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        _add(archive, program.name, program.read_bytes(), 0o755)
        for name, data in (files or {}).items():
            _add(archive, name, data)
    layer_bytes = layer.getvalue()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer_bytes).hexdigest()]},
        }
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps(
        [{"Config": config_name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    ).encode()
    with tarfile.open(target, "w") as archive:
        _add(archive, config_name, config)
        _add(archive, "layer.tar", layer_bytes)
        _add(archive, "manifest.json", manifest)
