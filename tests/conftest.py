"""What all tests share: our database on SQLite and on a real PostgreSQL, started once for the whole run."""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import hypothesis
import pytest
from playwright.sync_api import expect

import spawner.tables  # noqa: F401 - registers the tables
from galilean.db import Database, metadata
from tests.lab.kubernetes import kubernetes  # noqa: F401 - one lab for all that ask
from tests.object_stores.server import ObjectStore, missing
from tests.postgres import PostgresServer

# A busy machine is not a fault; and what CI finds, everybody finds with the same examples.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")
# A page is waited for as long as its test may take at all; Playwright's own 5 s are those of a quiet machine.
expect.set_options(timeout=120_000)
# The same for calls that name no time of their own: httpx gives them five seconds.
for _part in ("connect", "read", "write", "pool"):
    setattr(inspect.signature(httpx.Client).parameters["timeout"].default, _part, 120.0)


def pytest_configure() -> None:
    # A test run that is ended by SIGTERM takes what it started along, as one that is ended by Ctrl-C.
    signal.signal(signal.SIGTERM, _ended)


def _ended(number: int, frame: object) -> None:
    raise KeyboardInterrupt(f"ended from outside in {os.environ.get('PYTEST_CURRENT_TEST', 'no test')}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start a hub in their own process are a stage of their own (``make test-hub``).

    Those with a Kubernetes on this machine have time for it: the first of them starts it.
    """
    for item in items:
        if {"hub_app", "app"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.hub)
        if item.get_closest_marker("kubernetes") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1200))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes and long texts by where they stand: whoever shares the tests of a run must know them by the same names."""
    return argname if isinstance(val, bytes) or (isinstance(val, str) and len(val) > 60) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """In CI nothing is skipped: a real component that is missing is a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this test run's own; missing software is a failure, not a skip."""
    # Not below pytest's directory: another run makes that unreadable for the postgres account.
    directory = Path(tempfile.mkdtemp(prefix="galilean-postgres-"))
    server = PostgresServer(directory)
    try:
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'galilean.sqlite'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with server.database() as url:
            yield url


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """Our database with all tables, once of each kind."""
    database = Database(database_url, threads=4)
    metadata.create_all(database.engine)
    yield database
    database.close()


@pytest.fixture
def sqlite_db(tmp_path: Path) -> Iterator[Database]:
    """Our database on SQLite only, where the kind does not matter."""
    database = Database(f"sqlite:///{tmp_path / 'galilean.sqlite'}", threads=4)
    metadata.create_all(database.engine)
    yield database
    database.close()


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real object store of this test run's own."""
    if why := missing():
        pytest.skip(why)
    server = ObjectStore(tmp_path_factory.mktemp("s3") / "buckets")
    try:
        yield server.start()
    finally:
        server.stop()
