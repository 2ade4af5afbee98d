"""Installations without a running product: two databases, secrets, settings, a volume with a project."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from jupyterhub import orm
from sqlalchemy import insert, select

from galilean import migrate
from galilean.db import Database
from galilean.settings import Settings, load_settings
from galilean.tables import leases
from hub_config.backup.make import Made, make_backup
from hub_config.backup.restore import Restored, restore_backup
from hub_config.secrets import load_secrets
from services.catalog import store
from services.catalog.tables import volumes
from services.catalog.volumes import prepare_volume
from tests.postgres import PostgresServer

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Installation:
    """One, with what a test asks of it."""

    folder: Path
    settings: Settings
    environ: dict[str, str]

    @property
    def config(self) -> Path | None:
        path = Path(self.environ["GALILEAN_CONFIG"])
        return path if path.exists() else None

    def fill(self, *people: str) -> None:
        """As a first start and a bit of use would."""
        self.settings.state.mkdir(mode=0o700, exist_ok=True)
        migrate.upgrade(self.settings.database_url)
        load_secrets(self.settings.state)
        database = Database(self.settings.database_url)
        path = self.settings.volume_path("default")
        prepare_volume(path, "default")
        with database.write() as conn:
            conn.execute(
                insert(volumes).values(id="default", kind="directory", path=str(path), created_at=NOW)
            )
            for person in people:
                project = store.create(conn, owner=person, name=f"Of {person}", volume_id="default", now=NOW)
                (path / project.directory).mkdir(parents=True)
        database.close()
        self.sign_up(*people)

    def sign_up(self, *people: str) -> None:
        """Make people known to the hub."""
        session = orm.new_session_factory(self.settings.hub_database_url)()
        for person in people:
            session.add(orm.User(name=person))
        session.commit()
        _close(session)

    def owners(self) -> list[str]:
        """Whose projects our database has."""
        database = Database(self.settings.database_url)
        try:
            with database.read() as conn:
                return sorted(conn.execute(select(store.projects.c.owner)).scalars())
        finally:
            database.close()

    def people(self) -> list[str]:
        """Whom the hub's database knows."""
        session = orm.new_session_factory(self.settings.hub_database_url)()
        try:
            return sorted(name for (name,) in session.query(orm.User.name))
        finally:
            _close(session)

    def secrets(self) -> dict[str, str]:
        found = self.settings.state / "secrets"
        return {path.name: path.read_text() for path in sorted(found.glob("*")) if path.is_file()}

    def lease(self, name: str, until: datetime) -> None:
        database = Database(self.settings.database_url)
        with database.write() as conn:
            conn.execute(insert(leases).values(name=name, holder="somebody", expires_at=until))
        database.close()

    def run(self, table: str, statement: Callable[[Any], Any]) -> Any:
        """One transaction in ``galilean`` or ``hub``."""
        url = self.settings.database_url if table == "galilean" else self.settings.hub_database_url
        database = Database(url)
        try:
            with database.write() as conn:
                return statement(conn)
        finally:
            database.close()

    def backup(self, file: Path | None = None, **options: Any) -> Made:
        said: Any = options.pop("say", lambda message, **params: None)
        target = file if file or "out" in options else self.folder / "backup.tar.gz"
        return make_backup(
            self.settings, target, environ=self.environ, config=self.config, say=said, now=NOW, **options
        )

    def restore(self, file: Path, **options: Any) -> Restored:
        with file.open("rb") as source:
            return restore_backup(
                self.settings,
                source,
                environ=self.environ,
                config=self.config,
                say=options.pop("say", lambda message, **params: None),
                now=options.pop("now", NOW),
                **options,
            )


def _close(session: Any) -> None:
    engine = session.get_bind()
    session.close()
    engine.dispose()


Make = Callable[..., Installation]


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """``make("name")``: an installation that was never started, on both kinds of databases."""

    def new(name: str = "one", **settings: Any) -> Installation:
        folder = tmp_path / name
        folder.mkdir(mode=0o700)
        environ = {"GALILEAN_CONFIG": str(folder / "galilean.yaml"), "GALILEAN_STATE": str(folder / "state")}
        file: dict[str, Any] = {"site": {"name": f"Centre {name}"}, **settings}
        if request.param == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres_server")
            file["database"] = {
                "url": kept.enter_context(server.database()),
                "hub_url": kept.enter_context(server.database()),
            }
        Path(environ["GALILEAN_CONFIG"]).write_text(yaml.safe_dump(file), encoding="utf-8")
        return Installation(folder, load_settings(environ=environ), environ)

    new.kind = request.param  # type: ignore[attr-defined]
    with ExitStack() as kept:
        yield new


@pytest.fixture
def one(make: Make) -> Installation:
    """One that was used by two people."""
    found = make("one")
    found.fill("ada", "grace")
    return found
