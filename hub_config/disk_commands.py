"""``galilean disk …``: disks of everybody, for whoever has the machine; a person's own go by the API and the pages.

They work on the database itself, so that they do when nothing else runs. What is deleted here is taken away by the portal
(by the hub on Kubernetes) once that runs.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from galilean.clock import utcnow
from galilean.errors import mark
from galilean.terminal import say
from hub_config.storage_commands import COMMAND, AsJson, open_site

disk_app = typer.Typer(help="Disks: storage of people's own, mounted in runs.", no_args_is_help=True)
_PAGE = 200


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(disk_app, name="disk")


@disk_app.callback()
def disk() -> None:
    """Disks: storage of people's own, mounted in runs."""


@disk_app.command("list")
def list_disks(
    owner: Annotated[str, typer.Option(help="Of this person alone.")] = "",
    query: Annotated[str, typer.Option("--query", "-q", help="In the name.")] = "",
    as_json: AsJson = False,
) -> None:
    """List disks by owner and name, with the runs that have them."""
    from services.catalog import disk_store

    with open_site() as (_settings, database):
        after = ""
        while True:
            with database.read() as conn:
                rows = disk_store.listed(conn, owner=owner or None, text=query, after=after, limit=_PAGE)
            for row in rows:
                uses = [
                    {"cluster": use.run_id, "project": use.project, "mode": "write" if use.writes else "read"}
                    for use in row.uses
                ]
                said = {
                    "id": row.id,
                    "owner": row.owner,
                    "name": row.name,
                    "size_gib": row.size_gib,
                    "used_bytes": row.used_bytes,
                    "pool": row.pool,
                    "made_at": row.created_at.isoformat(),
                    "uses": uses,
                }
                held = ", ".join(f"{use['mode']} {use['cluster']}" for use in uses) or "–"
                plain = (f"{row.owner}/{row.name}", f"{row.size_gib} GiB", row.pool, held)
                typer.echo(json.dumps(said, ensure_ascii=False) if as_json else "\t".join(plain))
            if len(rows) < _PAGE:
                return
            after = rows[-1].id


@disk_app.command("delete")
def delete_disk(
    address: Annotated[str, typer.Argument(help="owner/name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete somebody's disk for good; refused while a run has it."""
    from sqlalchemy import Connection

    from services.catalog import disk_store, disks
    from services.catalog.shares import Actor

    owner, _, name = address.rpartition("/")
    with open_site() as (_settings, database):
        with database.read() as conn:
            found = disk_store.named(conn, owner, [name]).get(name)
        if found is None:
            raise disks.no_such_disk()
        if not yes:
            typer.confirm(f"{address}: {found.size_gib} GiB", abort=True)

        def remove(conn: Connection) -> None:
            disk_store.remove(conn, owner, found.id, actor=Actor(name=COMMAND), now=utcnow())

        asyncio.run(database.run_serialised("admission", remove))
        say(mark("The disk “{disk}” is deleted."), disk=address)
