"""``galilean object-stores …``: kept, and copied from and to, by script, as a person with a token in GALILEAN_TOKEN.

Each goes through the REST API, so it may exactly what its person may. The secret key is read from standard input: words of a
command are read by everybody on a machine.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from os import environ
from typing import Annotated, Any
from urllib.parse import quote

import typer

from galilean.commands.portal_client import PortalClient, from_environment, path_of
from galilean.errors import UserError, mark
from galilean.terminal import say, say_aside

stores_app = typer.Typer(help="Object stores (S3): kept, copied from and to.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="STORE", help="Its id or name.")]
Item = Annotated[str, typer.Argument(metavar="FILES", help="projects/OWNER/SLUG or datasets/OWNER/SLUG.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace what is there and differs.")]
ASK_SECONDS = 1.0


def add_object_store_commands(root: typer.Typer, here: Callable[[], str]) -> None:
    """Add them; ``here`` gives the address of this machine's portal."""
    root.add_typer(stores_app, name="object-stores")

    def client() -> PortalClient:
        return from_environment(environ, here)

    def one(portal: PortalClient, name: str) -> dict[str, Any]:
        found = portal.request("GET", "/object-stores").json()["items"]
        fitting = [store for store in found if name in (store["id"], store["name"])]
        if len(fitting) != 1:
            raise UserError(
                404 if not fitting else 409,
                mark(
                    "“{name}” is {count} object stores. Name one as `galilean object-stores list` shows it."
                ),
                name=name[:80],
                count=len(fitting),
            )
        return fitting[0]

    @stores_app.command("list")
    def list_stores(
        as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    ) -> None:
        """List the stores that you may copy from (token in GALILEAN_TOKEN)."""
        with client() as portal:
            for store in portal.request("GET", "/object-stores").json()["items"]:
                where = f"{store['endpoint']}/{store['bucket']}/{store['prefix']}"
                mode = "write" if store["writable"] else "read"
                plain = (store["id"], store["name"], where, mode, "centre" if store["centre"] else "own")
                typer.echo(json.dumps(store, ensure_ascii=False) if as_json else "\t".join(plain))

    @stores_app.command("add")
    def add_store(
        name: Annotated[str, typer.Argument(help="As it is shown.")],
        endpoint: Annotated[str, typer.Option(help="Such as https://s3.example.edu.")],
        bucket: Annotated[str, typer.Option(help="Name of the bucket.")],
        key_id: Annotated[str, typer.Option(help="Access key id.")],
        prefix: Annotated[str, typer.Option(help="Nothing outside of it is seen.")] = "",
        region: Annotated[str, typer.Option(help="Left out = us-east-1.")] = "",
        writable: Annotated[bool, typer.Option("--writable", help="Files may be written to it.")] = False,
        centre: Annotated[bool, typer.Option("--centre", help="For everybody with a role.")] = False,
    ) -> None:
        """Keep a store, once it answers; the secret key is read from standard input (token in GALILEAN_TOKEN)."""
        if sys.stdin.isatty():
            say_aside(mark("Type the secret key and press Enter."))
        secret = sys.stdin.readline().strip()
        body = {
            "name": name,
            "endpoint": endpoint,
            "bucket": bucket,
            "prefix": prefix,
            "region": region,
            "writable": writable,
            "centre": centre,
            "access_key_id": key_id,
            "secret_key": secret,
        }
        with client() as portal:
            typer.echo(portal.request("POST", "/object-stores", json=body).json()["id"])

    @stores_app.command("delete")
    def delete_store(store: Name) -> None:
        """Forget a store and its key; what lies in it stays (token in GALILEAN_TOKEN)."""
        with client() as portal:
            portal.request("DELETE", f"/object-stores/{one(portal, store)['id']}")

    def copy(portal: PortalClient, files: str, asked: dict[str, Any]) -> None:
        kind, _, address = files.strip("/").partition("/")
        if kind not in ("projects", "datasets"):
            raise UserError(
                400, mark("Name the files as projects/OWNER/SLUG or datasets/OWNER/SLUG."), reason="files"
            )
        item = path_of(kind, address)
        job = portal.request("POST", f"{item}/object-transfers", json=asked).json()
        while not job["ended_at"]:
            time.sleep(ASK_SECONDS)
            job = portal.request("GET", f"{item}/jobs/{job['id']}").json()
        for left in job["left_out"]:
            say_aside(mark("left out: {name} ({why})"), name=left["name"], why=left["why"])
        for problem in job["problems"]:
            say_aside("{text}", text=problem["detail"])
        say(
            mark("{count} files were copied, {size} bytes."),
            count=(job["made"] or ["0"])[0],
            size=job["size_bytes"],
        )
        if job["problems"] or job["state"] != "done":
            raise typer.Exit(1)

    @stores_app.command("import")
    def import_objects(
        store: Name,
        files: Item,
        prefix: Annotated[str, typer.Option(help="Folder in the store, with a slash at its end.")] = "",
        folder: Annotated[str, typer.Option(help="Folder that they come into; left out = the top.")] = "",
        replace: Replace = False,
    ) -> None:
        """Copy objects into a project or data set; what is the same is left alone (token in GALILEAN_TOKEN)."""
        with client() as portal:
            taken = "replace" if replace else "leave"
            asked = {"do": "import", "store": one(portal, store)["id"], "prefix": prefix, "taken": taken}
            copy(portal, files, {**asked, "folder": quote(folder.strip("/"))})

    @stores_app.command("export")
    def export_files(
        store: Name,
        files: Item,
        paths: Annotated[list[str] | None, typer.Argument(help="Files and folders; none = all.")] = None,
        prefix: Annotated[str, typer.Option(help="Folder in the store, with a slash at its end.")] = "",
        replace: Replace = False,
    ) -> None:
        """Copy files into a store that may be written to (token in GALILEAN_TOKEN)."""
        with client() as portal:
            taken = "replace" if replace else "leave"
            asked = {"do": "export", "store": one(portal, store)["id"], "prefix": prefix, "taken": taken}
            copy(portal, files, {**asked, "paths": [quote(path.strip("/")) for path in paths or []]})
