"""``galilean machines …``: the machines by script, as a person with a token in GALILEAN_TOKEN.

Each goes through the REST API, so it may exactly what its person may.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

import typer

from galilean.amounts import format_bytes
from galilean.commands.portal_client import PortalClient, from_environment

machines_app = typer.Typer(help="Machines: what carries the nodes.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of columns.")]


def add_machine_commands(root: typer.Typer, here: Callable[[], str]) -> None:
    """Add them; ``here`` gives the address of this machine's portal."""
    root.add_typer(machines_app, name="machines")

    def client() -> PortalClient:
        return from_environment(os.environ, here)

    @machines_app.command("list")
    def list_machines(
        search: Annotated[
            str, typer.Option("--search", help="Words in name, address, people or projects.")
        ] = "",
        as_json: AsJson = False,
    ) -> None:
        """List the machines (administrators; token in GALILEAN_TOKEN)."""
        cursor = ""
        with client() as portal:
            while True:
                params = {"limit": "200", "q": search, **({"cursor": cursor} if cursor else {})}
                page = portal.request("GET", "/machines", params=params).json()
                for item in page["items"]:
                    plain = (item["name"], item["state"], item["address"], str(len(item["holdings"])))
                    typer.echo(json.dumps(item, ensure_ascii=False) if as_json else "\t".join(plain))
                cursor = page["next"] or ""
                if not cursor:
                    return

    @machines_app.command("pods")
    def pods(
        name: Annotated[str, typer.Argument(metavar="MACHINE")],
        search: Annotated[str, typer.Option("--search", help="Words in name, person, part or state.")] = "",
        namespace: Annotated[str, typer.Option(help="In this one only.")] = "",
        as_json: AsJson = False,
    ) -> None:
        """Tell what a machine of a Kubernetes is and which pods of this installation are on it (administrators)."""
        with client() as portal:
            begin = 0
            while True:
                params = {"q": search, "namespace": namespace, "from": str(begin), "limit": "200"}
                page = portal.request(
                    "GET", f"/machines/{quote(name, safe='')}/contents", params=params
                ).json()
                if not begin and not as_json:
                    details, others = page["details"], page["others"]
                    typer.echo(f"# {details['system']}, {details['kernel']}, {details['runtime']}")
                    for one in page["namespaces"]:
                        typer.echo(f"# {one['name']}: {one['pods']}")
                    typer.echo(f"# others: {others['pods'] if others else '?'}")
                for pod in page["pods"]:
                    whose = f"{pod['user']}/{pod['server']}" if pod["user"] else pod["part"] or pod["what"]
                    plain = (
                        pod["namespace"],
                        pod["name"],
                        pod["phase"],
                        whose,
                        f"{pod['cpu_millicores'] / 1000:g}",
                        format_bytes(pod["memory_bytes"]),
                    )
                    typer.echo(json.dumps(pod, ensure_ascii=False) if as_json else "\t".join(plain))
                begin += len(page["pods"])
                if not page["pods"] or begin >= page["fitting"]:
                    return
