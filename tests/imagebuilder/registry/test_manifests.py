"""What an image says of itself is believed only as far as it can be checked."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extensions.imagebuilder.registry import manifests
from extensions.imagebuilder.registry.manifests import Descriptor, Index, Manifest, Platform, digest_of
from galilean.errors import UserError

HERE = Platform("linux", "amd64")
LAYER = manifests.LAYERS[1]


def blob(text: str, size: Any = 10, media_type: str = LAYER) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(text.encode()), "size": size}


def config_body(**more: Any) -> bytes:
    data = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(b"d")]},
    }
    return json.dumps(data | more).encode()


def manifest(layers: list[Any] | None = None, config: bytes | None = None, **more: Any) -> bytes:
    config = config if config is not None else config_body()
    pointer = {"mediaType": manifests.OCI_CONFIG, "digest": digest_of(config), "size": len(config)}
    layers = [blob("one")] if layers is None else layers
    return json.dumps({"schemaVersion": 2, "config": pointer, "layers": layers} | more).encode()


def read(body: bytes, media_type: str = manifests.OCI_MANIFEST, **more: Any) -> Manifest:
    found = manifests.read_manifest(body, media_type, **more)
    assert isinstance(found, Manifest)
    return found


def reason(body: bytes, media_type: str = manifests.OCI_MANIFEST, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        manifests.read_manifest(body, media_type, **more)
    assert caught.value.status == 422
    return caught.value.reason


def index(*platforms: dict[str, Any] | None) -> Index:
    entries = [
        blob(str(number), media_type=manifests.OCI_MANIFEST) | ({"platform": one} if one is not None else {})
        for number, one in enumerate(platforms)
    ]
    body = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    found = manifests.read_manifest(body, manifests.OCI_INDEX)
    assert isinstance(found, Index)
    return found


@pytest.mark.parametrize("media_type", manifests.MANIFESTS)
def test_a_manifest_is_read_in_both_dialects(media_type: str) -> None:
    body = manifest([blob("one", 5), blob("two", 7)], mediaType=media_type)
    found = read(body, f"{media_type}; charset=utf-8", digest=digest_of(body))
    assert [layer.size_bytes for layer in found.layers] == [5, 7]
    assert found.digest == digest_of(body)


def test_what_we_write_is_what_we_read() -> None:
    config = Descriptor(manifests.OCI_CONFIG, digest_of(b"c"), 3)
    layers = (Descriptor(LAYER, digest_of(b"l"), 4),)
    found = read(manifests.written(config, layers))
    assert (found.config, found.layers) == (config, layers)


def test_a_manifest_of_another_digest_is_refused() -> None:
    assert reason(manifest(), digest=digest_of(b"another")) == "image-digest"


@pytest.mark.parametrize("size", [-1, 1.5, True, "10", None, 2**63, 1e400])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    assert reason(manifest([blob("one", size)])) == "image-broken"


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 64 + "\n", "md5:" + "a" * 32, 7,
     "sha256:../../../../etc/passwd"],
)  # fmt: skip
def test_a_digest_that_is_none_is_refused(digest: Any) -> None:
    assert reason(manifest([blob("one") | {"digest": digest}])) == "image-broken"


def test_as_many_layers_as_a_machine_stacks_are_taken_and_one_more_is_refused() -> None:
    many = [blob(str(number)) for number in range(manifests.LAYERS_AT_MOST + 1)]
    assert len(read(manifest(many[:-1])).layers) == manifests.LAYERS_AT_MOST
    assert reason(manifest(many)) == "image-layers"


def test_one_digest_with_two_sizes_is_refused() -> None:
    assert reason(manifest([blob("one", 5), blob("one", 6)])) == "image-digest"


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "image-layer"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "image-layer"),
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "image-layer"),
        (5, "image-broken"),
    ],
)
def test_a_layer_of_a_kind_that_cannot_be_run_is_refused(media_type: Any, expected: str) -> None:
    assert reason(manifest([blob("one") | {"mediaType": media_type}])) == expected


@pytest.mark.parametrize(
    ("body", "media_type", "expected"),
    [
        (b"", manifests.OCI_MANIFEST, "image-broken"),
        (b"[" * 100_000, manifests.OCI_MANIFEST, "image-broken"),
        (b"[]", manifests.OCI_MANIFEST, "image-broken"),
        (b"\xff\xfe{}", manifests.OCI_MANIFEST, "image-broken"),
        (b'{"schemaVersion": 1}', manifests.DOCKER_MANIFEST, "image-old"),
        (manifest(mediaType=manifests.OCI_INDEX), manifests.OCI_MANIFEST, "image-broken"),
        (manifest(manifests=[]), manifests.OCI_MANIFEST, "image-broken"),
        (manifest(manifests=[]), manifests.OCI_INDEX, "image-broken"),
        (manifest(), "text/html", "image-broken"),
        (manifest([]), manifests.OCI_MANIFEST, "image-kind"),
        (manifest(layers={}), manifests.OCI_MANIFEST, "image-broken"),  # type: ignore[arg-type]
        (
            manifest(config=b"x") + b" " * manifests.DOCUMENT_BYTES_AT_MOST,
            manifests.OCI_MANIFEST,
            "image-broken",
        ),
    ],
)
def test_what_is_no_manifest_is_refused(body: bytes, media_type: str, expected: str) -> None:
    assert reason(body, media_type) == expected


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["schemaVersion", "config", "layers", "manifests", "mediaType", "digest",
                                         "size", "platform"]), inner, max_size=4), max_leaves=12))  # fmt: skip
def test_whatever_comes_is_read_or_refused_in_words(data: Any) -> None:
    for media_type in (*manifests.MANIFESTS, *manifests.INDEXES):
        if isinstance(data, dict):
            data = data | {"schemaVersion": 2}
        with suppress(UserError):
            manifests.read_manifest(json.dumps(data).encode(), media_type)


def test_an_index_gives_the_manifest_of_the_machine() -> None:
    found = index(
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
        {"os": "unknown", "architecture": "unknown"},
        {"os": "linux", "architecture": "amd64"},
        None,
    )
    assert manifests.choose(found, HERE) == found.entries[2]
    assert manifests.choose(found, Platform("linux", "arm64")) == found.entries[0]


def test_an_image_for_other_machines_is_refused_with_what_it_is_made_for() -> None:
    found = index(
        {"os": "linux", "architecture": "s390x"},
        {"os": "unknown", "architecture": "unknown"},
        {"os": "linux", "architecture": "arm", "variant": "v7"},
        {"os": 7},
        {"os": "linux", "architecture": "{evil}"},
    )
    with pytest.raises(UserError) as caught:
        manifests.choose(found, HERE)
    assert caught.value.reason == "image-platform"
    assert "linux/arm/v7, linux/s390x; the machines here are linux/amd64" in str(caught.value)


def test_a_variant_that_the_machine_lacks_is_not_chosen() -> None:
    with pytest.raises(UserError):
        manifests.choose(index({"os": "linux", "architecture": "amd64", "variant": "v4"}), HERE)


def test_a_config_tells_how_an_image_starts() -> None:
    body = config_body(
        architecture="x86_64",
        config={"User": "root", "Env": ["A=b"], "Entrypoint": ["/bin/sh"], "Cmd": None, "OnBuild": ["RUN x"],
                "Volumes": {"/data": {}}, "Labels": {"a": "b"}},
    )  # fmt: skip
    found = manifests.read_config(body, read(manifest(config=body)), HERE)
    assert found.platform == HERE
    assert (found.user, found.environment, found.entrypoint, found.command) == (
        "root", ("A=b",), ("/bin/sh",), (),
    )  # fmt: skip
    assert (found.volumes, found.on_build, dict(found.labels)) == (("/data",), ("RUN x",), {"a": "b"})


def test_a_config_for_another_processor_is_refused_whatever_the_index_said() -> None:
    body = config_body(architecture="arm64")
    with pytest.raises(UserError) as caught:
        manifests.read_config(body, read(manifest(config=body)), HERE)
    assert caught.value.reason == "image-platform"


def test_a_config_that_the_manifest_does_not_name_is_refused() -> None:
    named = read(manifest())
    with pytest.raises(UserError) as caught:
        manifests.read_config(config_body(os="Linux"), named, HERE)
    assert caught.value.reason == "image-digest"


@pytest.mark.parametrize(
    "more",
    [{"rootfs": {"diff_ids": []}}, {"rootfs": 3}, {"rootfs": {"diff_ids": [3]}}, {"config": []}, {"os": None},
     {"config": [1]}, {"config": {"Env": "A"}}, {"config": {"Labels": {"a": 1}}}, {"config": {"User": 0.5}}],
)  # fmt: skip
def test_a_config_that_is_broken_is_refused(more: dict[str, Any]) -> None:
    body = config_body(**more)
    if more == {"config": []}:  # as good as none
        assert manifests.read_config(body, read(manifest(config=body)), HERE).user == ""
        return
    with pytest.raises(UserError) as caught:
        manifests.read_config(body, read(manifest(config=body)), HERE)
    assert caught.value.reason == "image-broken"


def test_blobs_that_images_share_are_counted_once() -> None:
    base = blob("base", 1000)
    first = read(manifest([base, blob("first", 10), blob("first", 10)]))
    second = read(manifest([base, blob("second", 20)]))
    config = first.config.size_bytes
    alone = manifests.sizes_of([first, first])
    assert alone.apparent_bytes == alone.stored_bytes == first.size_bytes + config + 1010
    assert alone.freed_bytes[first.digest] == alone.stored_bytes
    both = manifests.sizes_of([first, second])
    assert both.stored_bytes == first.size_bytes + second.size_bytes + config + 1030
    assert both.apparent_bytes == both.stored_bytes + config + 1000
    assert both.freed_bytes == {first.digest: first.size_bytes + 10, second.digest: second.size_bytes + 20}


def test_images_that_disagree_on_a_size_are_refused() -> None:
    with pytest.raises(UserError):
        manifests.sizes_of([read(manifest([blob("base", 1)])), read(manifest([blob("base", 2)]))])
