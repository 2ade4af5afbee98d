"""A bucket of the test's own, and a folder to copy into."""

from __future__ import annotations

from pathlib import Path

import pytest

from galilean.reachable import Reachable
from services.files.root import Root
from services.object_stores.bucket import Bucket
from services.object_stores.rules import Key, Place
from tests.object_stores.server import ACCESS, SECRET, ObjectStore


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    return f"b-{abs(hash(request.node.nodeid)):x}"[:40]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    folder = tmp_path / "tree"
    folder.mkdir()
    return Root(folder)


def opened(server: ObjectStore, bucket: str, prefix: str = "", *, secret: str = SECRET) -> Bucket:
    """A bucket as the product opens it."""
    return Bucket(
        Place(endpoint=server.endpoint, bucket=bucket, prefix=prefix),
        Key(access_key_id=ACCESS, secret=secret),
        reachable=Reachable.parse([server.host]),
    )
