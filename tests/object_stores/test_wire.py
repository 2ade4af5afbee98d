"""Where requests to object stores go: by TLS to the name that was typed, at the address that was looked at."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from galilean.errors import UserError
from galilean.reachable import Reachable
from services.object_stores.bucket import Bucket
from services.object_stores.rules import Key, Place, md5_of, part_bytes
from services.object_stores.wire import Forbidden, Wire
from tests.object_stores.server import ACCESS, SECRET, ObjectStore, missing

KEY = Key(access_key_id=ACCESS, secret=SECRET)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of ``s3.example.edu``, signed by itself; its key lies beside it."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=s3.example.edu",
         "-addext", "subjectAltName=DNS:s3.example.edu"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def secure(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    if why := missing():
        pytest.skip(why)
    server = ObjectStore(tmp_path_factory.mktemp("tls-s3") / "buckets", certificate=certificate)
    try:
        yield server.start()
    finally:
        server.stop()


def bucket(server: ObjectStore, host: str, ca_file: Path | None) -> Bucket:
    def here(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    reachable = Reachable.parse(["s3.example.edu", "other.example.edu"])
    wire = Wire(reachable, ca_file=str(ca_file or ""), resolver=here)
    place = Place(endpoint=f"https://{host}:{server.port}", bucket="tls")
    return Bucket(place, KEY, reachable=reachable, wire=wire)


def test_a_store_is_known_by_its_certificate(secure: ObjectStore, certificate: Path) -> None:
    (secure.directory / "tls").mkdir(exist_ok=True)
    with bucket(secure, "s3.example.edu", certificate) as opened:
        assert opened.page().found == []
    for host, trusted in (("other.example.edu", certificate), ("s3.example.edu", None)):
        with bucket(secure, host, trusted) as opened, pytest.raises(UserError) as caught:
            opened.page()
        assert (caught.value.status, caught.value.params["what"]) == (503, "SSLError")


def test_a_name_that_answers_differently_the_second_time_gains_nothing() -> None:
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["93.184.216.34", "10.0.0.1"]])
    wire = Wire(Reachable.parse([]), resolver=lambda host, port: next(answers))
    assert wire.addresses("s3.example.com", 443) == ["93.184.216.34"]
    for _ in range(2):
        with pytest.raises(Forbidden):
            wire.addresses("s3.example.com", 443)


@pytest.mark.parametrize(
    ("tag", "encryption", "told"),
    [
        ('"0cc175b9c0f1b6a831c399e269772661"', "", "0cc175b9c0f1b6a831c399e269772661"),
        ('"0cc175b9c0f1b6a831c399e269772661"', "AES256", "0cc175b9c0f1b6a831c399e269772661"),
        ('"0cc175b9c0f1b6a831c399e269772661"', "aws:kms", None),
        ('"0cc175b9c0f1b6a831c399e269772661-3"', "", None),
        ('"x"', "", None),
    ],
)
def test_an_entity_tag_is_a_checksum_or_not(tag: str, encryption: str, told: str | None) -> None:
    assert md5_of(tag, encryption) == told


@pytest.mark.parametrize("size", [1, 5 << 20, 160 << 30, 5 << 40])
def test_there_are_never_more_parts_than_a_store_counts(size: int) -> None:
    each = part_bytes(size, least=5 << 20)
    assert -(-size // each) <= 10_000
    assert each >= 5 << 20


@pytest.mark.parametrize(
    ("endpoint", "addressing", "virtual"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "auto", True),
        ("https://oss-cn-hangzhou.aliyuncs.com", "auto", True),
        ("https://s3.example.edu", "auto", False),
        ("https://amazonaws.com.example.edu", "auto", False),
        ("https://s3.example.edu", "virtual", True),
    ],
)
def test_the_bucket_stands_where_the_store_wants_it(endpoint: str, addressing: str, virtual: bool) -> None:
    assert Place(endpoint=endpoint, bucket="b", addressing=addressing).virtual is virtual  # type: ignore[arg-type]
