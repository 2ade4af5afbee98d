"""Packed images as tools write them: docker save before and after version 25, and the OCI layout."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from typing import Any

from extensions.imagebuilder.looks import NODE_LABEL
from extensions.imagebuilder.registry import manifests
from extensions.imagebuilder.registry.manifests import digest_of
from tests.imagebuilder.layers import entry, layer

LAYERS = (layer(entry("etc/one", b"1" * 5000)).getvalue(), layer(entry("etc/two", b"2" * 9000)).getvalue())


def config(layers: Sequence[bytes] = LAYERS, **more: Any) -> dict[str, Any]:
    """Of an image whose layers, unpacked, are these; ``more`` is how it starts."""
    return {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Labels": {NODE_LABEL: "/x"}, **more},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(one) for one in layers]},
    }


def tarred(files: Sequence[tuple[str, bytes] | tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar file of these, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, body in files:
            info = entry(name, body)[0] if isinstance(name, str) else name
            tar.addfile(info, io.BytesIO(body) if info.size else None)
    return out.getvalue()


def docker_files(
    layers: Sequence[bytes] = LAYERS, document: dict[str, Any] | None = None
) -> list[tuple[str, bytes]]:
    """What ``docker save`` wrote before version 25."""
    body = json.dumps(document or config(layers)).encode()
    name = digest_of(body).removeprefix("sha256:") + ".json"
    folders = [f"{number:064x}/layer.tar" for number in range(len(layers))]
    listed = [{"Config": name, "RepoTags": ["x:1"], "Layers": folders}]
    return [*zip(folders, layers, strict=True), (name, body), ("manifest.json", json.dumps(listed).encode())]


def blob(body: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{digest_of(body).removeprefix('sha256:')}", body


def oci_files(
    layers: Sequence[bytes] = LAYERS,
    document: dict[str, Any] | None = None,
    *,
    packed: bool = True,
    kind: str = "",
    platform: dict[str, str] | None = None,
) -> tuple[list[tuple[str, bytes]], str]:
    """An OCI layout and the digest of its manifest; ``packed``: its layers by gzip, else bare as Docker 25 has them."""
    kind = kind or manifests.LAYERS[1 if packed else 0]
    stored = [gzip.compress(one, 1, mtime=0) for one in layers] if packed else list(layers)
    body = json.dumps(document or config(layers)).encode()
    manifest = manifests.written(
        manifests.Descriptor(manifests.OCI_CONFIG, digest_of(body), len(body)),
        [manifests.Descriptor(kind, digest_of(one), len(one)) for one in stored],
    )
    pointer: dict[str, Any] = {
        "mediaType": manifests.OCI_MANIFEST,
        "digest": digest_of(manifest),
        "size": len(manifest),
    }
    if platform:
        pointer["platform"] = platform
    index = {"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": [pointer]}
    files = [
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        *(blob(one) for one in dict.fromkeys((*stored, body, manifest))),
        ("index.json", json.dumps(index).encode()),
    ]
    return files, digest_of(manifest)
