"""Long work on files: how much of it one person has, and what is kept of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from galilean.clock import utcnow
from galilean.errors import UserError
from services.portal.file_jobs import KEPT_MOST, MOST_OF_ONE, FileJobs, Job

PLACE = ("project", "P1")


@pytest.fixture
async def jobs() -> AsyncIterator[FileJobs]:
    made = FileJobs(utcnow)
    yield made
    await made.close()


def named(_job: Job, path: str) -> str:
    return path


async def test_one_person_leaves_a_thread_for_others(jobs: FileJobs) -> None:
    go_on = threading.Event()

    def wait(_job: Job, path: str) -> str:
        go_on.wait(30)
        return path

    try:
        for _ in range(MOST_OF_ONE):
            jobs.begin("copy", ["a"], wait, by="ada", place=PLACE)
        with pytest.raises(UserError) as refused:
            jobs.begin("copy", ["a"], wait, by="ada", place=PLACE)
        assert refused.value.status == 429
        other = jobs.begin("copy", ["a"], named, by="eve", place=PLACE)
        await asyncio.wait_for(other.over.wait(), 30)
    finally:
        go_on.set()


async def test_a_path_that_is_said_twice_has_its_turn_once(jobs: FileJobs) -> None:
    job = jobs.begin("checksum", ["b", "a", "b"], named, by="ada", place=PLACE)
    await asyncio.wait_for(job.over.wait(), 30)
    assert job.made == ["b", "a"]


async def test_the_last_of_each_person_are_kept(jobs: FileJobs) -> None:
    first = jobs.begin("copy", ["a"], named, by="eve", place=PLACE)
    await asyncio.wait_for(first.over.wait(), 30)
    for number in range(KEPT_MOST + 5):
        job = jobs.begin("copy", [str(number)], named, by="ada", place=PLACE)
        await asyncio.wait_for(job.over.wait(), 30)
    assert [job.paths for job in jobs.of(by="ada", place=PLACE)] == [
        [str(number)] for number in range(KEPT_MOST + 4, 4, -1)
    ]
    assert jobs.of(by="eve", place=PLACE) == [first]
