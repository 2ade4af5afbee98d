"""``galilean project …`` and ``galilean dataset …`` for a person: what they do in the browser, by script.

Each goes through the REST API with the person's token (:mod:`galilean.commands.portal_client`). They are added to
the groups of commands that administrators have on the machine itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from galilean.amounts import format_bytes
from galilean.commands.portal_client import PortalClient, from_environment, path_of
from galilean.errors import UserError, mark
from galilean.terminal import Progress, say, say_aside, sentence

Here = Callable[[], str]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ADDRESS = typer.Argument(metavar="OWNER/SLUG", help="As its address in the browser ends.")
Address = Annotated[str, ADDRESS]
LOOK_SECONDS = 0.5
SECRETS_SHOWN = 10


def add_project_commands(app: typer.Typer, here: Here) -> None:
    """Add ``create``, ``delete``, ``publish`` and ``fork``; ``here`` gives the address of this machine's portal."""

    @app.command("create")
    def create(
        name: Annotated[str, typer.Argument(help="As people call it.")],
        slug: Annotated[str, typer.Option(help="Its part of addresses; left out = from the name.")] = "",
        description: Annotated[str, typer.Option(help="A sentence or more.")] = "",
        environment: Annotated[str, typer.Option(help="Left out = the site's.")] = "",
        notebook: Annotated[
            bool, typer.Option("--notebook", help="With a small notebook to begin with.")
        ] = False,
    ) -> None:
        """Make a project of your own (token in GALILEAN_TOKEN) and print its address."""
        body: dict[str, Any] = {"name": name, "description": description, "environment": environment}
        body |= {"slug": slug} if slug else {}
        with _client(here) as client:
            made = client.request("POST", "/projects", json={**body, "starter": notebook}).json()
        typer.echo(f"{made['owner']}/{made['slug']}")

    @app.command("delete")
    def delete(address: Address) -> None:
        """Put a project of yours into the bin (token in GALILEAN_TOKEN), where it can be restored for 30 days."""
        with _client(here) as client:
            client.request("DELETE", path_of("projects", address))
        say(mark("{address} is in the bin for 30 days."), address=address)

    @app.command("publish")
    def publish(address: Address, yes: Yes = False) -> None:
        """Let everybody see a project of yours (token in GALILEAN_TOKEN); what they will see is said first."""
        with _client(here) as client:
            _publish(client, path_of("projects", address), address, yes)

    @app.command("fork")
    def fork(
        address: Address,
        name: Annotated[str, typer.Option(help="Left out = the same.")] = "",
        wait: Annotated[bool, typer.Option(help="Until all files are copied.")] = True,
    ) -> None:
        """Copy a project that you may see into one of your own (token in GALILEAN_TOKEN) and print its address."""
        with _client(here) as client:
            body = {"name": name} if name else {}
            made = client.request("POST", path_of("projects", address) + "/forks", json=body).json()
            mine = f"{made['project']['owner']}/{made['project']['slug']}"
            typer.echo(mine)
            if made["left_out"]:
                say_aside(mark("It lacks {count} data sets that you may not read."), count=made["left_out"])
            if wait:
                _wait_for_copy(client, path_of("projects", mine))


def add_dataset_commands(app: typer.Typer, here: Here) -> None:
    """Add ``delete``, ``publish``, ``upload``, ``versions`` and ``keep-version``; ``here`` as for projects."""

    @app.command("delete")
    def delete(address: Address) -> None:
        """Put a data set of yours into the bin (token in GALILEAN_TOKEN), where it can be restored for 30 days."""
        with _client(here) as client:
            client.request("DELETE", path_of("datasets", address))
        say(mark("{address} is in the bin for 30 days."), address=address)

    @app.command("publish")
    def publish(address: Address, yes: Yes = False) -> None:
        """Let everybody read a data set of yours, for ever (token in GALILEAN_TOKEN); what they will see is said first."""
        with _client(here) as client:
            _publish(client, path_of("datasets", address), address, yes)

    @app.command("versions")
    def versions(
        address: Address,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    ) -> None:
        """List the versions of a data set that you may read, the newest first (token in GALILEAN_TOKEN).

        A version is deleted by its own address: `galilean dataset delete owner/slug-v1`.
        """
        with _client(here) as client:
            for one in client.request("GET", path_of("datasets", address) + "/versions").json()["items"]:
                state = one["busy"] or one["visibility"]
                size = "–" if one["size_bytes"] is None else format_bytes(one["size_bytes"])
                plain = (str(one["version"]), f"{one['owner']}/{one['slug']}", state, size)
                typer.echo(json.dumps(one, ensure_ascii=False) if as_json else "\t".join(plain))

    @app.command("keep-version")
    def keep_version(
        address: Address, wait: Annotated[bool, typer.Option(help="Until all files are copied.")] = True
    ) -> None:
        """Keep the files of a data set of yours as they are now, as a version (token in GALILEAN_TOKEN); print its address."""
        with _client(here) as client:
            made = client.request("POST", path_of("datasets", address) + "/versions").json()
            version = f"{made['owner']}/{made['slug']}"
            while wait and made["busy"]:
                time.sleep(LOOK_SECONDS)
                try:
                    made = client.request("GET", path_of("datasets", version)).json()
                except UserError as error:
                    if error.status != 404:
                        raise
                    raise UserError(
                        409,
                        mark(
                            "There is no version of {address}: its files changed meanwhile, or somebody cancelled it."
                        ),
                        address=address,
                    ) from error
            typer.echo(version)

    @app.command("upload")
    def upload(
        address: Address,
        paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
        into: Annotated[str, typer.Option(help="A folder of the data set; it is made.")] = "",
        taken: Annotated[
            Literal["refuse", "replace", "keep"],
            typer.Option("--if-taken", help="Where a name is taken; keep = both, the new one numbered."),
        ] = "refuse",
    ) -> None:
        """Upload files and folders into a data set (token in GALILEAN_TOKEN).

        After a broken line it goes on by itself; after Ctrl-C or a restart the same command goes on where it stopped.
        Exit code 1: some files were refused.
        """
        with _client(here) as client:
            refused = _upload(client, path_of("datasets", address), paths, into, taken)
        if refused:
            raise typer.Exit(1)


def _client(here: Here) -> PortalClient:
    return from_environment(os.environ, here)


def _publish(client: PortalClient, path: str, address: str, yes: bool) -> None:
    seen = client.request("GET", path + "/publication").json()
    say(
        mark("Everybody will see {files} files, {size}.")
        if seen["complete"]
        else mark("Everybody will see more than {files} files, {size}."),
        files=seen["files"],
        size=format_bytes(seen["size_bytes"]),
    )
    for name in seen["secrets"][:SECRETS_SHOWN]:
        say(mark("Looks like a key or password: {path}"), path=name)
    for name in seen["unreadable"]:
        say(mark("Others will not get the data set {name}."), name=name)
    if seen.get("for_ever"):
        say(mark("This is for ever: a public data set can never become private again."))
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(400, mark("Nothing was published: say --yes to publish without being asked."))
        typer.confirm(sentence(mark("Publish it?")), abort=True)
    client.request("PUT", path + "/publication")
    say(mark("{address} is public."), address=address)


def _wait_for_copy(client: PortalClient, path: str) -> None:
    progress = Progress(say_aside, mark("{done} of {total} copied"))
    while True:
        how = client.request("GET", path + "/copying").json()
        if how["state"] == "done":
            return
        progress.at(how["size_bytes"], how["of_bytes"])
        time.sleep(LOOK_SECONDS)


def _upload(client: PortalClient, item: str, paths: list[Path], into: str, taken: str) -> int:
    """Upload everything; how many files were refused."""
    from galilean.commands import uploading

    found = uploading.find(paths, into)
    for path in found.left_out:
        say_aside(mark("{path} is no file and is left out."), path=path)
    progress = Progress(say_aside, mark("{done} of {total}"))
    before = 0
    uploader = uploading.Uploader(
        client,
        item,
        uploading.Journal(uploading.journal_place(dict(os.environ))),
        taken=taken,
        told=lambda done: progress.at(before + done, found.size_bytes),
    )
    client.request("GET", item)  # once, rather than once for each file
    for folder in found.empty_folders:
        uploader.make_folder(folder)
    refused = 0
    for before, source in uploading.batches(found):  # noqa: B007 (read by told)
        try:
            uploader.upload(source)
        except UserError as error:
            if error.status in (401, 403, 404, 503, 507):
                raise
            refused += 1
            say_aside(
                mark("{name}: {problem}"), name=source.target, problem=sentence(error.message, **error.params)
            )
    say(
        mark("{count} files are there, {size}."),
        count=len(found.files) - refused,
        size=format_bytes(found.size_bytes),
    )
    return refused
