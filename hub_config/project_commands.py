"""``galilean project …``: everybody's projects from the command line: list, export, import, starter projects.

What a person does with their own is in :mod:`galilean.commands.of_people`. These work on database and volumes themselves, so that they do when nothing else runs. Whoever may run them has the
machine, and with it every project. An import by command has no browser, no proxy and no second copy on the way: it
is the one for archives of many gigabytes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from galilean.clock import utcnow
from galilean.db import Database, plain_words
from galilean.errors import UserError, mark
from galilean.settings import Settings, load_settings
from galilean.terminal import say, say_aside, sentence

project_app = typer.Typer(
    help="Projects: yours with a token, everybody's on the machine.", no_args_is_help=True
)


#: What is done where an address is taken, by the word of the option.
TAKEN: dict[str, Any] = {"number": "import", "replace": "replace", "skip": "skip"}


@project_app.callback()
def project() -> None:
    """Projects: yours with a token, everybody's on the machine."""


@contextmanager
def _site() -> Iterator[tuple[Settings, Database]]:
    settings = load_settings()
    if (
        not settings.database_url.startswith("postgresql")
        and not (settings.state / "galilean.sqlite").exists()
    ):
        raise UserError(
            503, mark("Galilean was never started on {state}. Start it: make up."), state=str(settings.state)
        )
    with closing(Database(settings.database_url)) as database, plain_words():
        yield settings, database


@project_app.command("list")
def list_projects(
    owner: Annotated[str, typer.Option(help="Of this person alone.")] = "",
    query: Annotated[str, typer.Option("--query", "-q", help="Words in name, address or text.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List projects, the last changed first."""
    from services.catalog import store

    with _site() as (_settings, database):
        cursor: str | None = None
        while True:
            with database.read() as conn:
                page, cursor = store.list_for(conn, owner or None, query=query, limit=500, cursor=cursor)
            for one in page:
                if as_json:
                    typer.echo(json.dumps(_row(one), ensure_ascii=False))
                else:
                    typer.echo(
                        f"{one.owner}/{one.slug}\t{one.visibility}\t{one.changed_at:%Y-%m-%d}\t{one.name}"
                    )
            if cursor is None:
                return


def _row(one: Any) -> dict[str, Any]:
    return {
        "id": one.id,
        "owner": one.owner,
        "slug": one.slug,
        "name": one.name,
        "visibility": one.visibility,
        "changed_at": one.changed_at.isoformat(),
        "size_bytes": one.size_bytes,
        "files": one.file_count,
        "volume": one.volume_id,
    }


@project_app.command("export")
def export(
    projects: Annotated[list[str] | None, typer.Argument(help="owner/slug or id of each.")] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write; - = standard output.")
    ] = Path("-"),
    everything: Annotated[bool, typer.Option("--all", help="Every project.")] = False,
    owner: Annotated[str, typer.Option(help="Every project of this person.")] = "",
    plain: Annotated[bool, typer.Option("--plain", help="A tar that is not made smaller.")] = False,
) -> None:
    """Write projects into an archive for `galilean project import`."""
    from services.catalog.archives import fitting, writing
    from services.catalog.resolver import prepare_directory
    from services.files.root import Root

    with _site() as (settings, database):
        found = _chosen(database, projects or [], everything=everything, owner=owner)
        if str(output) == "-" and sys.stdout.isatty():
            raise UserError(400, mark("An archive is nothing to read: say where to write it with -o."))

        def packed(*, said: bool) -> Iterator[writing.Packed]:
            for one in found:
                with database.read() as conn:
                    meta, cover = writing.meta_of(conn, one)
                if said:
                    say_aside(mark("{owner}/{slug} …"), owner=one.owner, slug=one.slug)
                yield writing.Packed(meta=meta, root=Root(prepare_directory(settings, one)), cover=cover)

        fitting.check_count(len(found))
        for one in packed(said=False):
            for _ in fitting.check(one):
                pass
        pieces = writing.write(
            packed(said=True), count=len(found), site=settings.site.name, now=utcnow(), compress=not plain
        )
        if str(output) == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            return
        half = output.with_name(output.name + ".part")
        try:
            with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            half.replace(output)
        except OSError as error:
            half.unlink(missing_ok=True)
            raise UserError(
                507,
                mark("{file} cannot be written: {why}."),
                file=str(output),
                why=error.strerror or str(error),
            ) from error
    say_aside(mark("{count} projects are in {file}."), count=len(found), file=str(output))


def _chosen(database: Database, named: list[str], *, everything: bool, owner: str) -> list[Any]:
    from services.catalog import store

    found: list[Any] = []
    with database.read() as conn:
        for name in named:
            person, slash, slug = name.partition("/")
            one = store.get(conn, person, slug) if slash else store.by_id(conn, name)
            if one is None:
                raise UserError(404, mark("There is no project “{name}”."), name=name[:80])
            found.append(one)
        if everything or owner:
            cursor: str | None = None
            while True:
                page, cursor = store.list_for(conn, owner or None, sort="created", limit=500, cursor=cursor)
                found += page
                if cursor is None:
                    break
    found = [one for one in {one.id: one for one in found}.values() if not one.busy]
    if not found:
        raise UserError(400, mark("Say which projects: owner/slug, --owner NAME or --all."))
    return found


@project_app.command("import")
def import_projects(
    archive: Annotated[Path, typer.Argument(help="As `galilean project export` writes it.")],
    owner: Annotated[str, typer.Option(help="Give all of them to this person.")] = "",
    fallback: Annotated[
        str, typer.Option("--else", help="Who gets what belongs to nobody here; without it, it is left out.")
    ] = "",
    conflict: Annotated[
        Literal["number", "replace", "skip"], typer.Option(help="Where the address is taken.")
    ] = "number",
    publish: Annotated[bool, typer.Option("--publish", help="Publish what was public.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Import projects from an archive. What is in the way is shown first. Exit code 1: some were not imported."""
    from services.catalog.archives import reading
    from services.catalog.archives.importing import Import
    from services.catalog.archives.planning import Choice
    from services.catalog.shares import Actor

    with _site() as (settings, database):
        if not archive.is_file():
            raise UserError(404, mark("{file} cannot be read: {why}."), file=str(archive), why="no such file")
        contents = reading.look(archive)
        accounts = asyncio.run(_accounts(settings))
        known = (lambda _name: True) if accounts is None else accounts.__contains__
        viewer_of, most_of = _owners(database, accounts or {})
        choices: dict[int, Choice] = {}
        for seen in contents.projects:
            who = owner or (seen.meta.owner if known(seen.meta.owner) else fallback)
            choices[seen.number] = Choice(action="import" if who else "skip", owner=who or seen.meta.owner)
        for one in _plan(database, settings, contents, known, viewer_of, fallback or owner, choices):
            if one.choice.action == "import" and any(each.kind == "slug" for each in one.conflicts):
                choices[one.seen.number] = Choice(action=TAKEN[conflict], owner=one.choice.owner)
        for one in _plan(database, settings, contents, known, viewer_of, fallback or owner, choices):
            _tell(one)
        if dry_run:
            say(mark("Nothing was imported."))
            return
        if not yes:
            if not sys.stdin.isatty():
                raise UserError(400, mark("Nothing was imported: say --yes to import without being asked."))
            typer.confirm(sentence(mark("Import these?")), abort=True)
        sizes = {one.number: one.size_bytes for one in contents.projects}
        volume_id = asyncio.run(_place(settings, database, sum(sizes.values())))
        work = Import(
            database=database,
            settings=settings,
            clock=utcnow,
            volume_id=volume_id,
            actor=Actor(name="command"),
            viewer_of=viewer_of,
            most_of=most_of,
            sizes=sizes,
            publish=publish,
        )
        outcomes = []
        for outcome in work.run(archive, choices):
            outcomes.append(outcome)
            say_aside(mark("{owner}/{slug} …"), owner=outcome.owner, slug=outcome.slug or outcome.name)
    bad = [one for one in outcomes if one.problem is not None]
    for one in bad:
        assert one.problem is not None
        say_aside(
            mark("{name}: {problem}"),
            name=one.name,
            problem=sentence(one.problem.message, **one.problem.params),
        )
    say(mark("{count} projects were imported."), count=len(outcomes) - len(bad))
    if bad:
        raise typer.Exit(1)


def _plan(
    database: Database,
    settings: Settings,
    contents: Any,
    known: Callable[[str], bool],
    viewer_of: Callable[[str], Any],
    importer: str,
    choices: Any,
) -> Any:
    from services.catalog.archives.planning import plan

    with database.read() as conn:
        return plan(
            conn,
            settings,
            contents.projects,
            importer=importer or "–",
            is_known=known,
            viewer_of=viewer_of,
            choices=choices,
        )


def _tell(one: Any) -> None:
    what = f"{one.choice.owner}/{one.slug}" if one.choice.action != "skip" else "–"
    typer.echo(
        f"{one.seen.meta.owner}/{one.seen.meta.slug} → {what} ({one.choice.action}, {one.seen.files} files)"
    )
    for conflict in one.conflicts:
        typer.echo("    " + sentence(conflict.message, **conflict.params))


async def _accounts(settings: Settings) -> dict[str, frozenset[str]] | None:
    """The hub groups of everybody by name; ``None`` of a hub that does not run: then everybody is known."""
    from hub_config.start import command_hub

    try:
        hub = command_hub(settings)
    except UserError:
        return None
    try:
        return {model["name"]: frozenset(model.get("groups", ())) for model in await hub.users()}
    except UserError as error:
        if error.status != 503:
            raise
        say_aside(
            mark(
                "The hub does not run: owners are taken as the archive names them, "
                "and what they may keep is not looked at."
            )
        )
        return None
    finally:
        await hub.close()


def _owners(
    database: Database, accounts: Mapping[str, frozenset[str]]
) -> tuple[Callable[[str], Any], Callable[[str], int | None]]:
    """What an owner may see, and how much they may keep, by their groups and roles."""
    from extensions.quota.policy import limits_of
    from galilean import rights
    from services.catalog.access import Viewer

    def viewer_of(name: str) -> Viewer:
        return Viewer.of(name, accounts.get(name, frozenset()))

    def most_of(name: str) -> int | None:
        with database.read() as conn:
            roles = rights.read(conn).roles_of(accounts.get(name, frozenset()))
            limits = limits_of(conn, name, roles, utcnow())
            return limits.amount("kept") if limits is not None else None

    return viewer_of, most_of


async def _place(settings: Settings, database: Database, size_bytes: int) -> str:
    from services.catalog.placing import Looker

    with closing(Looker(database, settings)) as looker:
        return await looker.place("project", size_bytes=size_bytes)


@project_app.command("starters")
def starters() -> None:
    """Put the six starter projects onto this site, or back where they were deleted."""
    from services.catalog.starters.install import begin

    with _site() as (settings, database):
        made = asyncio.run(begin(database, settings, anyway=True))
    say(mark("{count} starter projects were made."), count=len(made))
