"""``galilean environments …``: the catalogue by script, as a person with a token in GALILEAN_TOKEN.

Each goes through the REST API, so it may exactly what its person may. A password is read from standard input: words
of a command are read by everybody on a machine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
import yaml

from galilean.amounts import format_bytes
from galilean.commands import uploading
from galilean.commands.portal_client import PortalClient, from_environment
from galilean.errors import UserError, mark
from galilean.terminal import say, say_aside

environments_app = typer.Typer(help="Environments: what nodes start from.", no_args_is_help=True)
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="As `galilean environments list` shows it, or its id.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Address = Annotated[str, typer.Argument(metavar="IMAGE", help="As docker pull takes it.")]
KeyOf = Annotated[
    str, typer.Option("--login", help="Registry whose kept name and password it is fetched with.")
]


def add_environment_commands(root: typer.Typer, here: Callable[[], str]) -> None:
    """Add them; ``here`` gives the address of this machine's portal."""
    root.add_typer(environments_app, name="environments")

    def client() -> PortalClient:
        return from_environment(os.environ, here)

    def one(portal: PortalClient, name: str) -> dict[str, Any]:
        """An environment by name; its id is what addresses take, for a name may have a slash."""
        cursor = ""
        while "/" in name:
            params = {"limit": "200", "q": name, **({"cursor": cursor} if cursor else {})}
            page = portal.request("GET", "/environments", params=params).json()
            found = next((item for item in page["items"] if item["name"] == name), None)
            if found is not None:
                name = found["id"]
                break
            cursor = page["next"] or ""
            if not cursor:
                raise UserError(404, mark("There is no such environment, or it is not shared with you."))
        return portal.request("GET", f"/environments/{quote(name, safe='')}").json()

    def login(portal: PortalClient, registry: str) -> str:
        if not registry:
            return ""
        for key in portal.request("GET", "/registry-keys").json()["items"]:
            if key["registry"] == registry:
                return str(key["id"])
        raise UserError(404, mark("No name and password for {registry} is kept."), registry=registry)

    @environments_app.command("list")
    def list_environments(
        query: Annotated[str, typer.Option("--query", "-q", help="Words in name, title or text.")] = "",
        scope: Annotated[str, typer.Option(help="all, own, centre, shared or retired.")] = "all",
        as_json: AsJson = False,
    ) -> None:
        """List the environments that you may find (token in GALILEAN_TOKEN)."""
        with client() as portal:
            cursor = ""
            while True:
                params = {"q": query, "scope": scope, "limit": "200"} | ({"cursor": cursor} if cursor else {})
                page = portal.request("GET", "/environments", params=params).json()
                for item in page["items"]:
                    plain = (item["name"], item["version"] or "-", item["visibility"], item["title"])
                    typer.echo(json.dumps(item, ensure_ascii=False) if as_json else "\t".join(plain))
                cursor = page["next"] or ""
                if not cursor:
                    return

    @environments_app.command("show")
    def show(name: Name) -> None:
        """Show one as JSON: versions with their digests, start options, use (token in GALILEAN_TOKEN)."""
        with client() as portal:
            typer.echo(json.dumps(one(portal, name), ensure_ascii=False, indent=2))

    @environments_app.command("look")
    def look(address: Address, registry: KeyOf = "") -> None:
        """Tell what is at an image's address, and why it could not be registered (token in GALILEAN_TOKEN)."""
        with client() as portal:
            body = {"address": address, "key": login(portal, registry)}
            found = portal.request("POST", "/image-looks", json=body).json()
        typer.echo(
            f"{found['image']}\t{format_bytes(found['size_bytes'])}\t{found['layers']}\t{found['platform']}"
        )
        for text in found["told"]:
            typer.echo(text, err=True)

    @environments_app.command("register")
    def register(
        address: Address,
        title: Annotated[str, typer.Option(help="As people read it.")],
        name: Annotated[str, typer.Option(help="Left out = from the title.")] = "",
        description: Annotated[str, typer.Option(help="A sentence.")] = "",
        field: Annotated[str, typer.Option(help="Short name of a field.")] = "",
        tag: Annotated[str, typer.Option(help="Of this version; left out = the image's.")] = "",
        centre: Annotated[bool, typer.Option("--centre", help="For everybody (administrators).")] = False,
        start: Annotated[
            Path | None, typer.Option(help="YAML file with start options, as in galilean.yaml.")
        ] = None,
        registry: KeyOf = "",
    ) -> None:
        """Register an image as an environment, kept by its digest (token in GALILEAN_TOKEN); prints its name."""
        options = yaml.safe_load(start.read_text(encoding="utf-8")) if start else {}
        with client() as portal:
            body = {
                "title": title,
                "name": name,
                "description": description,
                "field": field,
                "tag": tag,
                "centre": centre,
                "start": options or {},
                "image": {"address": address, "key": login(portal, registry)},
            }
            made = portal.request("POST", "/environments", json=body).json()
        typer.echo(made["name"])
        for text in made["versions"][0]["told"]:
            typer.echo(text, err=True)

    @environments_app.command("version")
    def version(
        name: Name,
        address: Address,
        tag: Annotated[str, typer.Option(help="Left out = the image's.")] = "",
        note: Annotated[str, typer.Option(help="What is new.")] = "",
        registry: KeyOf = "",
    ) -> None:
        """Add a version that new runs get; those that are there keep theirs (token in GALILEAN_TOKEN)."""
        with client() as portal:
            found = one(portal, name)
            image = {"address": address, "key": login(portal, registry)}
            body = {"image": image, "tag": tag, "note": note}
            made = portal.request("POST", f"/environments/{found['id']}/versions", json=body).json()
        say(mark("New runs of “{name}” get version {tag}."), name=made["name"], tag=made["version"])

    @environments_app.command("licences")
    def licences(
        name: Name,
        servers: Annotated[
            list[str] | None,
            typer.Option("--server", metavar="HOST:PORT[,PORT…][/udp]", help="One; said again for others."),
        ] = None,
        none: Annotated[bool, typer.Option("--none", help="Take all ways away.")] = False,
    ) -> None:
        """Show an environment's licence servers, or set them as an administrator (token in GALILEAN_TOKEN)."""
        with client() as portal:
            found = one(portal, name)
            if servers or none:
                start = {key: value for key, value in found["start"].items() if key != "licences"}
                if servers:
                    start["licences"] = [server_in(text) for text in servers]
                found = portal.request("PATCH", f"/environments/{found['id']}", json={"start": start}).json()
        for server in found["start"].get("licences", ()):
            udp = "/udp" if server.get("protocol") == "udp" else ""
            host = f"[{server['host']}]" if ":" in server["host"] else server["host"]
            typer.echo(f"{host}:{','.join(str(port) for port in server['ports'])}{udp}")

    @environments_app.command("places")
    def places(
        redistribute: Annotated[
            bool, typer.Option("--redistribute", help="Fetch what is missing now.")
        ] = False,
        log: Annotated[
            str, typer.Option(metavar="IMAGE", help="Tell what happened to this image instead.")
        ] = "",
        as_json: AsJson = False,
    ) -> None:
        """Tell which image is on which machine, for administrators of machines (token in GALILEAN_TOKEN)."""
        with client() as portal:
            if redistribute:
                portal.request("POST", "/image-places", json={})
            if log:
                for item in portal.request("GET", "/image-places/log", params={"image": log}).json()["items"]:
                    seconds = "" if item["seconds"] is None else f"{item['seconds']} s"
                    plain = (item["at"], item["machine"], item["what"], seconds, item["actor"], item["why"])
                    typer.echo(json.dumps(item, ensure_ascii=False) if as_json else "\t".join(plain).rstrip())
                return
            for item in portal.request("GET", "/image-places").json()["items"]:
                plain = (
                    item["machine"],
                    item["state"],
                    ",".join(item["environments"]),
                    item["image"],
                    item["why"],
                )
                typer.echo(json.dumps(item, ensure_ascii=False) if as_json else "\t".join(plain).rstrip())

    @environments_app.command("upload")
    def upload(
        archive: Annotated[
            Path, typer.Argument(metavar="FILE", help="What docker save writes, or an OCI archive.")
        ],
        name: Annotated[
            str, typer.Argument(metavar="NAME:TAG", help="Lower case, 60 characters, never latest.")
        ],
        into: Annotated[str, typer.Option(help="Environment that it becomes the new version of.")] = "",
        description: Annotated[str, typer.Option(help="In a sentence.")] = "",
    ) -> None:
        """Upload a packed image, going on where it broke off, and wait until it is ready (token in GALILEAN_TOKEN)."""
        with client() as portal:
            target = one(portal, into)["id"] if into else ""
            said = {"name": name, "description": description, "into": target}
            image = uploading.upload_image(portal, archive, said, dict(os.environ))
            found = portal.request("GET", f"/images/{image}").json()
            while found["state"] == "saving":
                time.sleep(1)
                found = portal.request("GET", f"/images/{image}").json()
        if found["state"] != "ready":
            why = found["why"] or found["state"]
            raise UserError(422, mark("{name} was not taken up: {why}"), name=name, why=why)
        say(mark("{name} is ready as {image}."), name=f"{found['name']}:{found['tag']}", image=found["image"])

    @environments_app.command("retire")
    def retire(name: Name) -> None:
        """Give no new runs of it; clusters that are held go on (token in GALILEAN_TOKEN)."""
        with client() as portal:
            portal.request("PUT", f"/environments/{one(portal, name)['id']}/retired")
        say(mark("“{name}” is retired."), name=name)

    @environments_app.command("restore")
    def restore(name: Name) -> None:
        """Let a retired one take runs again (token in GALILEAN_TOKEN); name it by its id."""
        with client() as portal:
            portal.request("DELETE", f"/environments/{one(portal, name)['id']}/retired")
        say(mark("“{name}” takes runs again."), name=name)

    @environments_app.command("delete")
    def delete(name: Name) -> None:
        """Delete one of which no cluster is held (token in GALILEAN_TOKEN)."""
        with client() as portal:
            portal.request("DELETE", f"/environments/{one(portal, name)['id']}")
        say(mark("“{name}” is deleted."), name=name)

    @environments_app.command("login")
    def keep_login(
        registry: Annotated[str, typer.Argument(help="Such as registry.example.edu.")],
        username: Annotated[str, typer.Argument(help="Name at the registry.")],
        centre: Annotated[bool, typer.Option("--centre", help="For environments of the centre.")] = False,
    ) -> None:
        """Keep a registry's name and password, encrypted; the password is read from standard input."""
        if sys.stdin.isatty():
            say_aside(mark("Type the password and press Enter."))
        password = sys.stdin.readline().rstrip("\r\n")
        with client() as portal:
            body = {"registry": registry, "username": username, "password": password, "centre": centre}
            portal.request("POST", "/registry-keys", json=body)
        say(mark("The name and password for {registry} are kept."), registry=registry)


def server_in(text: str) -> dict[str, Any]:
    """A licence server as it is typed: ``flex.example.edu:27000,27001``, ``[2001:db8::7]:1947/udp``.

    Raises
    ------
    UserError
        400.
    """
    address, slash, protocol = text.partition("/")
    host, _, ports = address.rpartition(":")
    numbers = ports.split(",")
    if (
        not host
        or not all(number.isdecimal() for number in numbers)
        or (slash and protocol not in ("tcp", "udp"))
    ):
        raise UserError(
            400,
            mark("“{text}” is no licence server. Write it like flex.example.edu:27000,27001."),
            text=text[:80],
        )
    server: dict[str, Any] = {"host": host.strip("[]"), "ports": [int(number) for number in numbers]}
    return {**server, "protocol": protocol} if slash else server
