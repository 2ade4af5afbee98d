"""What tests of the catalogue share: a volume, and people who have things on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from galilean.db import Database
from galilean.settings import Settings
from services.catalog.volumes import ensure_volumes
from tests.catalog.people import NOW


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path)


@pytest.fixture
def catalogue(db: Database, settings: Settings) -> Database:
    """Our database with a volume, once of each kind."""
    with db.write() as conn:
        ensure_volumes(conn, settings, NOW)
    return db
