"""``galilean dataset …`` and ``galilean volume …``: data sets and volumes from the command line.

They work on the database and the volumes themselves, so that they do when nothing else runs; only a claim of Kubernetes is
registered with the hub's help, which has the machines look at it. Whoever may run them has the machine. A drain is only asked for here: the portal carries it out while people work.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from galilean.amounts import format_bytes
from galilean.clock import utcnow
from galilean.db import Database, plain_words
from galilean.errors import UserError, mark
from galilean.settings import Settings, load_settings
from galilean.terminal import say, say_aside

dataset_app = typer.Typer(
    help="Data sets: yours with a token, everybody's on the machine.", no_args_is_help=True
)
volume_app = typer.Typer(help="Volumes: where projects and data sets are kept.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
COMMAND = "command"


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(dataset_app, name="dataset")
    root.add_typer(volume_app, name="volume")


@contextmanager
def open_site() -> Iterator[tuple[Settings, Database]]:
    """Settings and database of this machine, for commands that need nothing that runs."""
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


def _print(values: dict[str, Any], as_json: bool, *plain: object) -> None:
    typer.echo(json.dumps(values, ensure_ascii=False, default=str) if as_json else "\t".join(map(str, plain)))


@dataset_app.callback()
def dataset() -> None:
    """Data sets: yours with a token, everybody's on the machine."""


@dataset_app.command("list")
def list_datasets(
    owner: Annotated[str, typer.Option(help="Of this person alone.")] = "",
    query: Annotated[str, typer.Option("--query", "-q", help="Words in name, address, owner or texts.")] = "",
    as_json: AsJson = False,
) -> None:
    """List data sets, the last changed first."""
    from services.catalog import datasets, search
    from services.catalog.access import Viewer

    wanted = search.Wanted(kind="dataset", text=query, author=owner)
    root = Viewer(name="", admin=True)
    with open_site() as (_settings, database):
        cursor: str | None = None
        while True:
            with database.read() as conn:
                page = search.search(conn, root, wanted, scope="everything", limit=200, cursor=cursor)
                rows = [datasets.by_id(conn, card.item_id) for card in page.items]
            for one in rows:
                if one is not None:
                    size = "" if one.size_bytes is None else format_bytes(one.size_bytes)
                    _print(_row(one), as_json, f"{one.owner}/{one.slug}", one.visibility, size, one.name)
            cursor = page.next
            if cursor is None:
                return


def _row(one: Any) -> dict[str, Any]:
    names = ("id", "owner", "slug", "name", "summary", "mount", "visibility", "volume_id", "size_bytes")
    times = {name: getattr(one, name).isoformat() for name in ("created_at", "changed_at")}
    return {name: getattr(one, name) for name in names} | {"file_count": one.file_count} | times


@dataset_app.command("create")
def create_dataset(
    owner: Annotated[str, typer.Argument(help="Whose it is: the name of an account.")],
    name: Annotated[str, typer.Argument(help="As people call it.")],
    mount: Annotated[str, typer.Option(help="Directory below ~/datasets; left out = from the name.")] = "",
    summary: Annotated[str, typer.Option(help="A sentence.")] = "",
) -> None:
    """Make an empty data set and print its address and its directory, for large files to be put there by hand."""
    from services.catalog.collection import Datasets
    from services.catalog.projects import Projects

    with open_site() as (settings, database):
        projects = Projects(database, settings)
        try:
            made = asyncio.run(
                Datasets(database, settings, projects).create(
                    owner, name, mount=mount or None, summary=summary
                )
            )
        finally:
            projects.close()
        typer.echo(f"{made.owner}/{made.slug}\t{made.path(settings)}")


@dataset_app.command("path")
def dataset_path(address: Annotated[str, typer.Argument(help="owner/slug, or its id.")]) -> None:
    """Print the directory of a data set's files."""
    from services.catalog import datasets
    from services.catalog.access import no_such_thing

    with open_site() as (settings, database):
        owner, slash, slug = address.rpartition("/")
        with database.read() as conn:
            found = datasets.get(conn, owner, slug) if slash else datasets.by_id(conn, address)
        if found is None:
            raise no_such_thing()
        typer.echo(str(found.path(settings)))


@volume_app.callback()
def volume() -> None:
    """Volumes: where projects and data sets are kept."""


@volume_app.command("list")
def list_volumes(as_json: AsJson = False) -> None:
    """List volumes as their disks are now, with what lies on them."""
    from services.catalog import volume_store
    from services.catalog.placing import Looker

    with open_site() as (settings, database):
        looker = Looker(database, settings)
        try:
            rows = asyncio.run(looker.look())
        finally:
            looker.close()
        with database.read() as conn:
            held = volume_store.holdings(conn)
        for row in rows:
            there = held.get(row.id, volume_store.Holding())
            free = "–" if row.free_bytes is None else format_bytes(row.free_bytes)
            state = f"draining to {row.drains_to}" if row.state == "draining" else row.state
            _print(
                {**vars(row), **vars(there)},
                as_json,
                row.id,
                row.path,
                row.problem or state,
                free,
                there.items,
            )


@volume_app.command("register")
def register_volume(
    volume_id: Annotated[str, typer.Argument(metavar="ID", help="Small letters, digits, hyphens.")],
    path: Annotated[Path, typer.Argument(help="An empty directory, the whole path.")],
    claim: Annotated[str, typer.Option(help="Of Kubernetes: the PersistentVolumeClaim mounted there.")] = "",
    holds: Annotated[str, typer.Option(help="both, projects or datasets.")] = "both",
) -> None:
    """Register a volume: its directory is looked at and marked first, on Kubernetes then on every machine by the hub."""
    from services.catalog import volume_store, volumes
    from services.catalog.placement import VolumeRow
    from services.catalog.shares import Actor
    from services.portal import volume_looks

    with open_site() as (settings, database):
        kind = "claim" if settings.backend == "kubernetes" else "directory"
        asked = VolumeRow(id=volume_id, kind=kind, path=str(path), claim=claim, holds=holds)
        with database.read() as conn:
            row = volume_looks.wanted(settings, asked, volume_store.all_volumes(conn))
        volumes.check_place(Path(row.path), volume_id)
        if row.kind == "claim":
            say_aside(mark("Looking on every machine; this takes up to a minute …"))
            volume_looks.need_everywhere(volume_id, asyncio.run(_seen(settings, database, row)))
        with database.write() as conn:
            volume_store.register(conn, row, actor=Actor(name=COMMAND), now=utcnow())
        say(mark("The volume “{volume}” is registered."), volume=volume_id)


async def _seen(settings: Settings, database: Database, row: Any) -> Any:
    from hub_config.start import command_hub
    from services.portal.volume_looks import seen_by_machines

    hub = command_hub(settings)
    try:
        return await seen_by_machines(settings, database, hub, row)
    finally:
        await hub.close()


@volume_app.command("edit")
def edit_volume(
    volume_id: Annotated[str, typer.Argument(metavar="ID")],
    holds: Annotated[str, typer.Option(help="both, projects or datasets: what new things it takes.")] = "",
    state: Annotated[str, typer.Option(help="open or closed; either ends a drain.")] = "",
) -> None:
    """Say what new things a volume takes, close it or open it again."""
    _change("edit", volume_id, holds=holds or None, state=state or None)
    say(mark("The volume “{volume}” is changed."), volume=volume_id)


@volume_app.command("drain")
def drain_volume(
    volume_id: Annotated[str, typer.Argument(metavar="ID")],
    target: Annotated[str, typer.Argument(help="The volume that takes everything.")],
) -> None:
    """Let everything on a volume move to another; the portal does it while people work."""
    list_volumes_quietly()
    _change("drain", volume_id, target)
    say(mark("The volume “{volume}” is drained to “{target}”."), volume=volume_id, target=target)


def list_volumes_quietly() -> None:
    """Look at the disks, so that what is free is known as it is now."""
    from services.catalog.placing import Looker

    with open_site() as (settings, database):
        looker = Looker(database, settings)
        try:
            asyncio.run(looker.look())
        finally:
            looker.close()


@volume_app.command("delete")
def delete_volume(volume_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Forget a volume that is empty and not the last; its directory stays."""
    _change("delete", volume_id, configured=None)
    say(mark("The volume “{volume}” is deleted."), volume=volume_id)


def _change(act: str, volume_id: str, *arguments: Any, **more: Any) -> None:
    from services.catalog import volume_store
    from services.catalog.shares import Actor

    with open_site() as (settings, database):
        if "configured" in more:
            more["configured"] = volume_id in settings.volumes
        with database.write() as conn:
            getattr(volume_store, act)(
                conn, volume_id, *arguments, actor=Actor(name=COMMAND), now=utcnow(), **more
            )
