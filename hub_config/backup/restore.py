"""``galilean restore``: an installation out of a backup, in two steps.

*Beside*: the file is read to its end and every sum compared; this version must know the tables of both
databases; copies of SQLite databases are brought to this version. Whatever fails here has touched nothing.

*In place*: what is there goes aside into ``<state>/replaced/<time>``, then comes what the file holds: the
hub's database, ours, the secrets. When that fails half-way, it is all taken back. A mark in the state directory
stands from the first change to the last: where even taking back was cut off (a power cut), neither the product
nor a backup begins while it stands, and the cure is to restore once more.

Nothing that lives may be restored over: neither a supervisor on the state directory, nor a hub that
answers, nor a service that holds a lease in the database.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from alembic.script import ScriptDirectory
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from galilean import migrate
from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.settings import Settings, parse_settings
from galilean.tables import audit_log, leases
from galilean.terminal import Progress, Say
from hub_config import hub_database
from hub_config.backup import contents
from hub_config.backup import half as half_mark
from hub_config.backup.archive import Manifest, cannot_write, read_archive, stamp
from hub_config.backup.contents import VolumeCheck
from hub_config.backup.databases import Store, store_of
from hub_config.backup.half import is_half_restored
from hub_config.backup.sqlite import SQLiteStore, sqlite_revision
from hub_config.secrets import given_directory
from hub_config.supervisor import Lock

LOADING = {
    "galilean": mark("Galilean's database is being put back ({total})."),
    "hub": mark("The hub's database is being put back ({total})."),
}


@dataclass(kw_only=True)
class Restored:
    """What a restore did.

    Attributes
    ----------
    aside
        Where that is kept which was there before; ``None`` when there was nothing.
    secrets_given
        Whether secrets come from elsewhere, so that those of the backup were not put in place.
    settings_kept
        Whether the settings in use are others than those of the backup.
    upgraded
        Whether the tables were those of an older version.
    """

    manifest: Manifest
    aside: Path | None = None
    secrets_given: bool = False
    settings_kept: bool = False
    upgraded: bool = False
    volumes: list[VolumeCheck] = field(default_factory=list)


@dataclass(kw_only=True)
class _Work:
    settings: Settings
    environ: Mapping[str, str]
    config: Path | None
    stores: list[Store]
    say: Say
    now: datetime
    staging: Path


def restore_backup(
    settings: Settings,
    source: IO[bytes],
    *,
    environ: Mapping[str, str],
    config: Path | None,
    say: Say,
    now: datetime,
    replace: bool = False,
    alive: Callable[[Settings], str] | None = None,
) -> Restored:
    """Make the installation what a backup says.

    Parameters
    ----------
    settings, config
        Of the installation to be, and the file that they were read from.
    source
        The backup, read once from its beginning to its end.
    environ
        Where the secrets are (``GALILEAN_SECRETS``), and where settings would be looked for.
    say
        Told how far it is, when it takes longer than a second.
    now
        For the name of what is put aside, and for the audit log.
    replace
        Whether an installation that is there may be put aside.
    alive
        Asks the hub; answers where it was found, or nothing.

    Raises
    ------
    UserError
        409 when the product runs, when there is an installation and ``replace`` is not set, or when a newer
        version made the backup; 400 when it is damaged; 5xx when something cannot be reached or written.
    """
    state = settings.state
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    state.chmod(0o700)
    lock = Lock(state)
    try:
        stores = [store_of("hub", settings.hub_database_url), store_of("galilean", settings.database_url)]
        refuse_living(settings, now, alive)
        present = _present(state, stores, environ)
        if present and not replace and not is_half_restored(state):
            raise UserError(
                409,
                mark(
                    "There is an installation already ({what}). Restore with --replace to put it aside and take "
                    "its place."
                ),
                what=", ".join(present),
            )
        with _staging(state) as staging:
            work = _Work(
                settings=settings,
                environ=environ,
                config=config,
                stores=stores,
                say=say,
                now=now,
                staging=staging,
            )
            return _restore(work, source, bool(present))
    finally:
        lock.release()


def _restore(work: _Work, source: IO[bytes], present: bool) -> Restored:
    reading = Progress(work.say, mark("Reading the backup: {done} of {total}."))
    manifest = read_archive(source, work.staging, reading.at)
    done = Restored(manifest=manifest, upgraded=_check_versions(manifest, work.stores))
    _check_settings(work)
    _bring_beside_up(work, manifest)
    half, was_half = work.settings.state / half_mark.NAME, is_half_restored(work.settings.state)
    half.write_text(f"{work.now.isoformat()}\n", encoding="utf-8")
    undo: list[Callable[[], Any]] = []
    try:
        done.aside = _new_aside(work) if present else None
        _swap(work, manifest, done.aside, undo)
        done.volumes = _settle(work, manifest)
        done.settings_kept = _put_settings(work)
    except BaseException:
        for step in reversed(undo):
            step()
        if not was_half:  # else it was neither the one nor the other before, and is so again
            half.unlink()
        raise
    done.secrets_given = given_directory(work.environ) is not None
    half.unlink()
    return done


# ---------------------------------------------------------------------------------------- before anything


def refuse_living(settings: Settings, now: datetime, alive: Callable[[Settings], str] | None) -> None:
    """Refuse while any part works with the databases.

    Raises
    ------
    UserError
        409, naming who was found.
    """
    if alive is not None and (found := alive(settings)):
        raise UserError(409, mark("The hub runs ({where}). Stop Galilean first."), where=found)
    if holders := _lease_holders(settings, now):
        raise UserError(
            409,
            mark(
                "A part works with the database still: {parts}. Stop Galilean first; after a crash, wait half a "
                "minute."
            ),
            parts=", ".join(holders),
        )


def _lease_holders(settings: Settings, now: datetime) -> list[str]:
    store = store_of("galilean", settings.database_url)
    if not store.is_there():
        return []
    database = Database(settings.database_url)
    try:
        with database.read() as conn:
            query = select(leases.c.name).where(leases.c.expires_at > now).order_by(leases.c.name)
            return list(conn.execute(query).scalars())
    except SQLAlchemyError:
        return []  # no such table, or damaged: then nobody works with it
    finally:
        database.close()


def _present(state: Path, stores: list[Store], environ: Mapping[str, str]) -> list[str]:
    found = [f"{store.kind} {store.name}" for store in stores if store.is_there()]
    if given_directory(environ) is None and contents.secret_files(state, environ):
        found.append("secrets")
    return found


def _check_versions(manifest: Manifest, stores: list[Store]) -> bool:
    newest = {"galilean": migrate.newest(), "hub": hub_database.newest()}
    known = {"galilean": _our_revisions(), "hub": hub_database.known()}
    for store in stores:
        copy = manifest.databases[store.name]
        if copy.kind != store.kind:
            raise UserError(
                409,
                mark(
                    "The backup holds a {theirs} database, the settings say {ours} for the database {name}. Restore "
                    "to the same kind."
                ),
                theirs=copy.kind,
                ours=store.kind,
                name=store.name,
            )
        if copy.revision and copy.revision not in known[store.name]:
            raise UserError(
                409,
                mark(
                    "This backup was made by a newer Galilean ({version}): its database {name} is at revision "
                    "{revision}, which this version does not know. Install that version first."
                ),
                version=manifest.version[:40],
                name=store.name,
                revision=copy.revision[:40],
            )
    return any(manifest.databases[name].revision != newest[name] for name in newest)


def _check_settings(work: _Work) -> None:
    """Where there are no settings, those of the backup are taken; then they must mean the same places."""
    file = work.staging / contents.SETTINGS / "galilean.yaml"
    if work.config is not None or not file.exists():
        return
    theirs = parse_settings(file.read_text("utf-8"), environ=dict(work.environ))
    ours = work.settings
    if (theirs.state, theirs.database_url, theirs.hub_database_url) != (
        ours.state,
        ours.database_url,
        ours.hub_database_url,
    ):
        raise UserError(
            409,
            mark(
                "There are no settings here, and those of the backup name another state directory or other "
                "databases. Take settings/galilean.yaml out of the file (tar), look whether it fits this machine, "
                "put it in its place and restore then."
            ),
        )


def _our_revisions() -> frozenset[str]:
    scripts = ScriptDirectory.from_config(migrate.alembic_config())
    return frozenset(script.revision for script in scripts.walk_revisions())


def _bring_beside_up(work: _Work, manifest: Manifest) -> None:
    """Try the upgrade of what can be tried beside the installation."""
    for store in work.stores:
        if isinstance(store, SQLiteStore):
            file = work.staging / manifest.databases[store.name].file
            copy = manifest.databases[store.name]
            if sqlite_revision(file) != copy.revision:
                raise UserError(
                    400,
                    mark("This is not a backup of Galilean, or it is damaged: {why}. Nothing was changed."),
                    why=f"the database {store.name} is not what the manifest says",
                )
            _upgrade(store.name, f"sqlite:///{file}")


def _upgrade(name: str, url: str) -> None:
    if name == "galilean":
        migrate.upgrade(url)
    else:
        hub_database.upgrade(url)


# ---------------------------------------------------------------------------------------------- in place


def _new_aside(work: _Work) -> Path:
    aside = work.settings.state / half_mark.ASIDE / stamp(work.now)
    number = 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{stamp(work.now)}-{number}")
    try:
        aside.mkdir(parents=True, mode=0o700)
        if work.config is not None:
            shutil.copy2(work.config, aside / "galilean.yaml")
    except OSError as error:
        raise cannot_write(aside, error) from error
    return aside


def _swap(work: _Work, manifest: Manifest, aside: Path | None, undo: list[Callable[[], Any]]) -> None:
    """Put aside what is there and the backup in its place; each step leaves in ``undo`` how to take it back."""
    back: dict[str, Callable[[], Any]] = {}
    for store in work.stores:
        was_there = store.is_there() and aside is not None
        back[store.name] = partial(store.take_back, aside) if was_there and aside else store.clear
        if store.moves:
            undo.append(back[store.name])
        if was_there and aside:
            progress = Progress(work.say, mark("Putting aside what is there: {done} of at most {total}."))
            store.put_aside(aside, progress.at)
    for store in work.stores:
        file = work.staging / manifest.databases[store.name].file
        store.load(file, Progress(work.say, LOADING[store.name]).at)
        if not store.moves:
            undo.append(back[store.name])
            _upgrade(store.name, store.url.render_as_string(hide_password=False))
    if given_directory(work.environ) is None:
        _swap_secrets(work, aside, undo)


def _swap_secrets(work: _Work, aside: Path | None, undo: list[Callable[[], Any]]) -> None:
    target, source = work.settings.state / "secrets", work.staging / contents.SECRETS
    kept = aside / "secrets" if aside else None

    def take_back() -> None:
        if kept is not None and kept.exists():
            shutil.rmtree(target, ignore_errors=True)
            kept.rename(target)

    undo.append(take_back)
    try:
        if kept is not None and target.is_dir():
            target.rename(kept)
        target.mkdir(exist_ok=True, mode=0o700)
        for path in sorted(source.rglob("*")):
            if path.is_file():
                place = target / path.relative_to(source)
                place.parent.mkdir(exist_ok=True, mode=0o700)
                shutil.move(path, place)
    except OSError as error:
        raise cannot_write(target, error) from error


def _put_settings(work: _Work) -> bool:
    """Settings are put in place only where there are none; whether others are in use."""
    source = work.staging / contents.SETTINGS
    if not source.is_dir():
        return False
    if work.config is not None:
        kept = source / "galilean.yaml"
        return not kept.exists() or kept.read_bytes() != work.config.read_bytes()
    target = Path(work.environ.get("GALILEAN_CONFIG") or "galilean.yaml").absolute()
    try:
        shutil.copytree(source, target.parent, dirs_exist_ok=True, copy_function=_copy_missing(target))
    except OSError as error:
        raise cannot_write(target, error) from error
    return False


def _copy_missing(settings_file: Path) -> Callable[[str, str], Any]:
    def copy(source: str, target: str) -> Any:
        place = settings_file if Path(source).name == "galilean.yaml" else Path(target)
        return place if place.exists() else shutil.copy(source, place)

    return copy


def _settle(work: _Work, manifest: Manifest) -> list[VolumeCheck]:
    """Leave no lease of a process that is no more, write down what was done, look for the volumes."""
    database = Database(work.settings.database_url)
    try:
        with database.write() as conn:
            conn.execute(delete(leases))
            conn.execute(
                insert(audit_log).values(
                    at=work.now,
                    actor="command",
                    action="backup.restore",
                    subject="installation",
                    after={"made_at": manifest.made_at.isoformat(), "version": manifest.version},
                )
            )
        return contents.check_volumes(database, work.settings)
    finally:
        database.close()


@contextmanager
def _staging(state: Path) -> Iterator[Path]:
    """A private directory on the file system of the state; what an earlier restore left is removed."""
    for left in state.glob(".restore-*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        place = Path(tempfile.mkdtemp(prefix=".restore-", dir=state))
    except OSError as error:
        raise cannot_write(state, error) from error
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
