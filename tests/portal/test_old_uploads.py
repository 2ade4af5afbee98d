"""Uploads that nobody goes on with."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

from galilean.clock import utcnow
from services.files.paths import HIDDEN
from services.files.root import Root
from services.files.shelf import Shelf
from services.portal import old_uploads
from tests.portal.live import LiveSite
from tests.portal.test_pages import directory


def test_they_are_ended_after_a_week_and_those_under_way_stay(site: LiveSite) -> None:
    left, going, clean = (directory(site, site.project("alice", name).id) for name in ("A", "B", "C"))
    for root, age in ((left, timedelta(days=8)), (going, timedelta(days=1))):
        root.mkdir(parents=True)
        Shelf(Root(root), clock=lambda age=age: utcnow() - age).begin("big.bin", 10, by="alice")
    clean.mkdir(parents=True)
    asyncio.run_coroutine_threadsafe(old_uploads.sweep(site.portal), site.loop).result(20)
    assert os.listdir(left) == []
    assert os.listdir(going) == [HIDDEN]
    assert os.listdir(clean) == []
