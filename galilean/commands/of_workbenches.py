"""``galilean workbenches …``: environments opened on their own, by script, as a person with a token in GALILEAN_TOKEN.

Each goes through the REST API, so it may exactly what its person may.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from galilean.commands.portal_client import PortalClient, from_environment
from galilean.errors import UserError, mark
from galilean.terminal import say

workbenches_app = typer.Typer(help="Workbenches: environments opened on their own.", no_args_is_help=True)
Environment = Annotated[
    str, typer.Argument(metavar="ENVIRONMENT", help="As `galilean environments list` shows it, or its id.")
]


def add_workbench_commands(root: typer.Typer, here: Callable[[], str]) -> None:
    """Add them; ``here`` gives the address of this machine's portal."""
    root.add_typer(workbenches_app, name="workbenches")

    def client() -> PortalClient:
        return from_environment(os.environ, here)

    def mine(portal: PortalClient) -> list[dict[str, Any]]:
        return portal.request("GET", "/workbenches").json()["items"]

    def one(portal: PortalClient, name: str) -> dict[str, Any]:
        found = next((item for item in mine(portal) if name in (item["environment"], item["id"])), None)
        if found is None:
            raise UserError(404, mark("You have no workbench of “{environment}”."), environment=name[:128])
        return found

    @workbenches_app.command("list")
    def list_workbenches(
        as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    ) -> None:
        """List your workbenches (token in GALILEAN_TOKEN)."""
        with client() as portal:
            for item in mine(portal):
                plain = (item["environment"], item["state"], str(item["size_bytes"] or 0), item["url"])
                typer.echo(json.dumps(item, ensure_ascii=False) if as_json else "\t".join(plain))

    @workbenches_app.command("open")
    def open_workbench(
        environment: Environment,
        cpu: Annotated[float | None, typer.Option(help="Cores; left out = the centre's default.")] = None,
        memory: Annotated[str | None, typer.Option(help="Such as 8G.")] = None,
        gpu: Annotated[int | None, typer.Option(help="Cards.")] = None,
        pool: Annotated[str | None, typer.Option(help="On which machines.")] = None,
        release: Annotated[str | None, typer.Option(help="Release policy.")] = None,
    ) -> None:
        """Open an environment on its own (token in GALILEAN_TOKEN); prints the cluster's id and state."""
        wanted = {"cpu": cpu, "memory": memory, "gpu": gpu, "pool": pool, "release": release}
        asked = {name: value for name, value in wanted.items() if value is not None}
        with client() as portal:
            bench = portal.request("POST", "/workbenches", json={"environment": environment}).json()
            run = portal.request("POST", f"/workbenches/{bench['id']}/clusters", json=asked).json()
            typer.echo(f"{run['id']}\t{run['status']}\t{portal.root}{bench['url']}")

    @workbenches_app.command("release")
    def release_workbench(environment: Environment) -> None:
        """Release it; what is neither in its work nor saved as an image is lost (token in GALILEAN_TOKEN)."""
        with client() as portal:
            bench = one(portal, environment)
            if bench["cluster"] is None:
                say(mark("The workbench of “{environment}” is not open."), environment=bench["environment"])
                return
            portal.request("DELETE", f"/clusters/{bench['cluster']}")
            say(
                mark("The workbench of “{environment}” goes back. Its work stays."),
                environment=bench["environment"],
            )

    @workbenches_app.command("delete")
    def delete_workbench(
        environment: Environment,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    ) -> None:
        """Put its work into the bin (token in GALILEAN_TOKEN)."""
        with client() as portal:
            bench = one(portal, environment)
            if not yes:
                typer.confirm(f"{bench['name']}: {bench['file_count'] or 0} files", abort=True)
            portal.request("DELETE", f"/workbenches/{bench['id']}")
            say(
                mark("The workbench of “{environment}” is in the bin for 30 days."),
                environment=bench["environment"],
            )
