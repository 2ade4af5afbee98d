"""Images made of nothing but one static program, as a docker archive that containerd imports."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path


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
