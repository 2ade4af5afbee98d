"""A packed image is read as hostile: what tools write is understood, what tricks is refused."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from extensions.imagebuilder import archive
from extensions.imagebuilder.archive import Image
from extensions.imagebuilder.registry.manifests import LAYERS_AT_MOST, Platform, digest_of
from galilean.errors import UserError
from tests.imagebuilder.layers import entry, layer, link
from tests.imagebuilder.packed import LAYERS, blob, config, docker_files, oci_files, tarred

HERE = Platform("linux", "amd64")


def read(packed: bytes) -> Image:
    file = io.BytesIO(packed)
    found = archive.image(file, archive.members(file), HERE)
    for one in found.layers:
        archive.unpacked(file, one, most_bytes=1 << 30)
    return found


def reason(packed: bytes) -> str:
    with pytest.raises(UserError) as refused:
        read(packed)
    assert refused.value.status in (413, 422)
    return refused.value.reason


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, None, type=tarfile.SYMTYPE, linkname=target)


def test_what_docker_save_writes_is_one_image() -> None:
    found = read(tarred(docker_files()))
    assert (found.kind, len(found.layers), found.as_it_is) == ("docker", 2, False)
    assert [one.diff_id for one in found.layers] == [digest_of(one) for one in LAYERS]


def test_an_oci_archive_keeps_its_digest() -> None:
    files, digest = oci_files()
    found = read(tarred(files))
    assert (found.kind, found.as_it_is, found.manifest.digest) == ("oci", True, digest)


def test_bare_layers_of_an_oci_archive_are_packed_so_its_manifest_is_another() -> None:
    files, _ = oci_files(packed=False)
    assert not read(tarred(files)).as_it_is


def test_a_layer_that_docker_wrote_once_and_linked_is_found() -> None:
    files: list[Any] = docker_files((LAYERS[0], LAYERS[0]))
    files[1] = symlink(files[1][0], f"../{files[0][0]}")
    assert len(read(tarred(files)).layers) == 2


def test_an_image_of_several_platforms_gives_the_one_that_runs_here() -> None:
    files, digest = oci_files(platform={"os": "linux", "architecture": "amd64"})
    index = json.loads(files[-1][1])
    other = dict(
        index["manifests"][0], platform={"os": "linux", "architecture": "arm64"}, digest="sha256:" + "0" * 64
    )
    files[-1] = ("index.json", json.dumps(index | {"manifests": [other, *index["manifests"]]}).encode())
    assert read(tarred(files)).manifest.digest == digest


def test_gzip_around_the_whole_is_unpacked_and_bounded() -> None:
    packed, out = tarred(docker_files()), io.BytesIO()
    assert not archive.unpack(io.BytesIO(packed), out, most_bytes=1 << 20, progress=lambda _: None)
    assert archive.unpack(io.BytesIO(gzip.compress(packed)), out, most_bytes=1 << 20, progress=lambda _: None)
    assert out.getvalue() == packed
    bomb = gzip.compress(b"\0" * (4 << 20))
    with pytest.raises(UserError) as refused:
        archive.unpack(io.BytesIO(bomb), io.BytesIO(), most_bytes=1 << 20, progress=lambda _: None)
    assert refused.value.status == 413


@pytest.mark.parametrize("first", [b"BZh9", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"], ids=["bzip2", "zstd", "xz"])
def test_another_way_of_packing_is_said_in_words(first: bytes) -> None:
    with pytest.raises(UserError) as refused:
        archive.unpack(io.BytesIO(first + b"\0" * 600), io.BytesIO(), most_bytes=99, progress=lambda _: None)
    assert refused.value.reason == "archive-kind"


def test_layers_packed_by_zstd_are_refused_with_what_to_do_about_it() -> None:
    files, _ = oci_files(layers=(b"\x28\xb5\x2f\xfd" + b"\0" * 600,), packed=False)
    assert reason(tarred(files)) == "layer-zstd", "whatever the manifest says of it"
    files, _ = oci_files(kind="application/vnd.oci.image.layer.v1.tar+zstd")
    with pytest.raises(UserError, match="skopeo copy --dest-compress-format gzip"):
        file = io.BytesIO(tarred(files))
        archive.image(file, archive.members(file), HERE)  # before a layer is read


@pytest.mark.parametrize(
    "packed",
    [b"", b"hello" * 500, tarred([("README", b"no image")]), tarred([("index.json", b"{}")])],
    ids=["empty", "text", "others", "half"],
)
def test_what_is_no_image_is_said_so(packed: bytes) -> None:
    assert reason(packed) == "archive-kind"


def test_two_images_in_one_archive_are_refused() -> None:
    files = docker_files()
    listed = json.loads(files[-1][1])
    assert reason(tarred([*files[:-1], ("manifest.json", json.dumps(listed * 2).encode())])) == "archive-two"


def _twice(files: list[Any]) -> list[Any]:
    return [*files, files[0]]


def _climbing(files: list[Any]) -> list[Any]:
    return [("../../etc/passwd", b"x"), *files]


def _hard_link(files: list[Any]) -> list[Any]:
    return [*files, link("x", files[0][0])]


def _device(files: list[Any]) -> list[Any]:
    return [*files, entry("null", None, type=tarfile.CHRTYPE)]


def _link_out(files: list[Any]) -> list[Any]:
    return [symlink(files[0][0], "/etc/passwd"), *files[1:]]


def _link_up(files: list[Any]) -> list[Any]:
    return [symlink(files[0][0], "../../../../etc/passwd"), *files[1:]]


def _missing_layer(files: list[Any]) -> list[Any]:
    return files[1:]


def _big_document(files: list[Any]) -> list[Any]:
    return [*files[:-1], ("manifest.json", b"[" + b" " * (5 << 20) + b"]")]


def _not_json(files: list[Any]) -> list[Any]:
    return [*files[:-1], ("manifest.json", b"[" * 100_000)]


@pytest.mark.parametrize(
    "trick",
    [_twice, _climbing, _hard_link, _device, _link_out, _link_up, _missing_layer, _big_document, _not_json],
)
def test_tricks_of_an_archive_are_refused(trick: Callable[[list[Any]], list[Any]]) -> None:
    assert reason(tarred(trick(docker_files()))) == "archive"


def test_an_archive_that_breaks_off_is_refused() -> None:
    packed = tarred(docker_files())
    assert reason(packed[: len(packed) // 2]) == "archive"


def test_a_blob_that_is_not_its_digest_is_a_lie() -> None:
    files, _ = oci_files()
    at = next(number for number, (name, _) in enumerate(files) if name.startswith("blobs/"))
    files[at] = (files[at][0], files[at][1] + b"x")
    assert reason(tarred(files)) == "image-digest"


def test_a_config_that_is_not_its_name_is_a_lie() -> None:
    files = docker_files()
    files[2] = (files[2][0], files[2][1] + b" ")
    assert reason(tarred(files)) == "image-digest"


@pytest.mark.parametrize("packed", [True, False])
def test_a_layer_that_is_not_what_the_config_says_is_a_lie(packed: bool) -> None:
    said = config((LAYERS[0], layer(entry("etc/other")).getvalue()))
    assert reason(tarred(oci_files(LAYERS, said, packed=packed)[0])) == "image-digest"
    assert reason(tarred(docker_files(LAYERS, said))) == "image-digest"


def test_a_layer_that_climbs_out_is_refused() -> None:
    bad = (layer(entry("../../etc/passwd", b"x")).getvalue(),)
    assert reason(tarred(docker_files(bad))) == "layer"


def test_another_processor_is_refused() -> None:
    document = config() | {"architecture": "arm64"}
    assert reason(tarred(docker_files(document=document))) == "image-platform"
    assert reason(tarred(oci_files(document=document)[0])) == "image-platform"


def test_more_layers_than_a_machine_stacks_are_refused() -> None:
    many = (LAYERS[0],) * (LAYERS_AT_MOST + 1)
    assert reason(tarred(docker_files(many))) == "image-layers"
    assert reason(tarred(oci_files(many)[0])) == "image-layers"


def test_a_layer_that_unpacks_to_too_much_is_refused() -> None:
    file = io.BytesIO(tarred(oci_files()[0]))
    found = archive.image(file, archive.members(file), HERE)
    with pytest.raises(UserError) as refused:
        archive.unpacked(file, found.layers[0], most_bytes=1000)
    assert refused.value.status == 413


def test_a_layer_kept_elsewhere_is_refused() -> None:
    files, digest = oci_files()
    at = next(number for number, (_, body) in enumerate(files) if digest_of(body) == digest)
    body = files[at][1].replace(b"layer.v1.tar+gzip", b"layer.nondistributable.v1.tar+gzip")
    index = json.loads(files[-1][1])
    index["manifests"][0] |= {"digest": digest_of(body), "size": len(body)}
    files[at], files[-1] = blob(body), ("index.json", json.dumps(index).encode())
    assert reason(tarred(files)) == "image-layer"
