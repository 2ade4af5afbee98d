"""The parts of the product, as the supervisor of one machine and the containers of a chart start them.

A part is a command and an environment that is complete; :func:`part_of` is the one place that knows them.
Proxy first, because the hub asks it for its routes; then everything at once, for the services live without
the hub and the hub lives without them. The proxy is the Node program that the lock file pins; a port of it
in another language (same command name) is taken where there is no Node.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from galilean.errors import UserError, mark
from galilean.settings import BUILT_IMAGES, Settings
from hub_config import registry
from hub_config.addresses import EVERYWHERE, Addresses
from hub_config.build import hub_api_url, service_environment, zygote_socket
from hub_config.secrets import Secrets
from hub_config.supervisor import Part, Probe

ROOT = Path(__file__).resolve().parent.parent
PROXY = "configurable-http-proxy"
SERVICE_NAMES = ("portal", "metering", "release", "queue", "machines")
NAMES = ("hub", "proxy", *SERVICE_NAMES)
#: What the command ``galilean part NAME`` becomes: each in a container of its own.
ALONE = (*NAMES, "imagebuilder")


def find_proxy(root: Path = ROOT) -> list[str]:
    """The proxy's command: of this clone, else of this Python environment, else of the machine.

    Raises
    ------
    UserError
        503, saying how to get it.
    """
    ours = root / "node_modules" / ".bin" / PROXY
    if ours.exists() and shutil.which("node"):
        return [str(ours)]
    beside = Path(sys.executable).parent / PROXY
    found = str(beside) if beside.exists() else shutil.which(PROXY)
    if found:
        return [found]
    raise UserError(
        503,
        mark(
            "The proxy is missing. With Node.js 20 or newer: npm ci (make up does it). Without: pip install "
            "configurable-http-proxy, which is slower."
        ),
    )


def node_version() -> tuple[int, ...]:
    """Version of Node.js; empty when there is none."""
    program = shutil.which("node")
    if not program:
        return ()
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    try:
        return tuple(int(part) for part in answer.stdout.strip().lstrip("v").split("."))
    except ValueError:
        return ()


def common_environment(
    settings: Settings, config: Path | None, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What every part inherits: the machine's variables, our programs first in the path, where all is.

    Nothing of a hub that may have started *us* (a terminal in a node) gets through; nor do Python's own
    variables, which a forked node would have and a plain one would not.
    """
    inherited = os.environ if environ is None else environ
    kept = {
        key: value
        for key, value in inherited.items()
        if not key.startswith(("JUPYTERHUB_", "JUPYTER_", "GALILEAN_", "CONFIGPROXY_", "PYTHON"))
        or key == "PYTHONPATH"
    }
    if settings.backend == "docker":
        kept |= {name: inherited[name] for name in BUILT_IMAGES if inherited.get(name)}
    paths = [str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]
    return kept | {
        "PATH": os.pathsep.join(paths),
        "GALILEAN_STATE": str(settings.state),
        "GALILEAN_CONFIG": str(config) if config else "",
        "PORT": str(settings.web.port),
        "BACKEND": settings.backend,
    }


def database_environment(name: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where the databases are and secrets lie, for the parts that may know: the hub all, services one database."""
    inherited = os.environ if environ is None else environ
    wanted = ("GALILEAN_DATABASE_URL",) if name in SERVICE_NAMES else ()
    if name == "hub":
        wanted = ("GALILEAN_DATABASE_URL", "GALILEAN_HUB_DATABASE_URL", "GALILEAN_SECRETS")
    return {variable: inherited[variable] for variable in wanted if inherited.get(variable)}


def part_of(
    name: str,
    settings: Settings,
    secrets: Secrets,
    addresses: Addresses,
    *,
    proxy: list[str] | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Part:
    """One part.

    Parameters
    ----------
    name
        One of :data:`NAMES`, or ``zygote``.
    settings, secrets, addresses
        Of the installation; of the secrets only what the part needs.
    proxy
        The proxy's command; looked for when it is not given.
    config
        The settings file.
    environ
        Instead of the process's own environment.

    Raises
    ------
    UserError
        404 when there is no such part; 503 when the proxy's program or an address is missing.
    """
    common = common_environment(settings, config, environ)
    python = sys.executable
    if name == "proxy":
        hub_api = hub_api_url(settings, addresses)
        return Part(
            name=name,
            command=proxy_command(settings, addresses, proxy or find_proxy()),
            environment={**common, "CONFIGPROXY_AUTH_TOKEN": secrets.proxy},
            ready=answers(f"{addresses.url('proxy_api')}/api/routes", secrets.proxy),
            # It comes back empty: the hub puts the routes in at once, not at its next look.
            restarted=posts(f"{hub_api}/proxy", secrets.tokens["command"]),
        )
    if name == "hub":
        return Part(
            name=name,
            command=[python, "-m", "hub_config.launch"],
            environment=common | database_environment(name, environ),
            ready=answers(*through_the_proxy(settings)),
            after=("proxy",),
            stop_seconds=20,
        )
    if name == "zygote":
        return Part(
            name=name,
            command=[python, "-m", "spawner.process.zygote", "--socket", str(zygote_socket(settings))],
            environment=common,
        )
    if name in SERVICE_NAMES:
        return Part(
            name=name,
            command=[python, "-m", f"services.{name}"],
            environment=common
            | database_environment(name, environ)
            | service_environment(name, settings, secrets, addresses),
            # Without a word of Kubernetes on its machines people can work all the same.
            ready=answers(addresses.url(name) + ("/metrics" if name == "machines" else "/health")),
        )
    if name == "registry":
        return Part(
            name=name,
            command=[registry.PROGRAM, "serve", str(registry.settings_file(settings))],
            environment={"PATH": common["PATH"]},
            ready=answers(addresses.url("registry") + "/"),
        )
    if name == "imagebuilder":
        own: dict[str, str] = {}
        if registry.is_own(settings):
            own = {
                "GALILEAN_REGISTRY": addresses.url("registry"),
                "GALILEAN_REGISTRY_PASSWORD": secrets.registry,
                "GALILEAN_REGISTRY_SETTINGS": str(registry.settings_file(settings)),
            }
        inherited = os.environ if environ is None else environ
        return Part(
            name=name,
            command=[python, "-m", "extensions.imagebuilder"],
            environment=common
            | {
                name: inherited[name]
                for name in ("GALILEAN_DATABASE_URL", "DOCKER_HOST")
                if inherited.get(name)
            }
            | service_environment(name, settings, secrets, addresses)
            | own
            | ({"GALILEAN_AGENT_KEY": secrets.agent} if settings.backend == "kubernetes" else {}),
            ready=answers(addresses.url("imagebuilder") + "/metrics"),
            # Nobody may stay held: it lets them go before it ends.
            stop_seconds=20,
        )
    raise no_such_part(name)


def no_such_part(name: str) -> UserError:
    """Said plainly."""
    return UserError(
        404, mark("There is no part “{part}”. There are: {known}."), part=name[:40], known=", ".join(ALONE)
    )


def all_parts(
    settings: Settings,
    secrets: Secrets,
    addresses: Addresses,
    *,
    proxy: list[str],
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[Part]:
    """Every part of one machine, in the order in which they are told."""
    one_machine = settings.backend != "kubernetes"
    zygote = ("zygote",) if settings.backend == "process" and settings.process.zygote else ()
    # The one machine is looked at by whoever shows it.
    services = [name for name in SERVICE_NAMES if not (one_machine and name == "machines")]
    images = [name for name in registry.parts(settings) if name != "registry" or registry.is_own(settings)]
    return [
        part_of(name, settings, secrets, addresses, proxy=proxy, config=config, environ=environ)
        for name in ("proxy", "hub", *zygote, *services, *images)
    ]


def proxy_command(settings: Settings, addresses: Addresses, proxy: list[str]) -> list[str]:
    """How the proxy is started; its secret comes by the environment."""
    api = addresses["proxy_api"]
    command = [
        *proxy,
        "--ip",
        settings.web.host,
        "--port",
        str(settings.web.port),
        "--api-ip",
        api.host,
        "--api-port",
        str(api.port),
        "--error-target",
        f"{addresses.url('hub')}{settings.web.base_url}hub/error",
        "--log-level",
        "warn",
        "--pid-file",
        str(settings.state / "run" / "proxy.pid"),
    ]
    if settings.web.subdomain_host:
        command.append("--host-routing")
    tls = settings.jupyterhub.get("JupyterHub", {})
    for trait, option in (("ssl_key", "--ssl-key"), ("ssl_cert", "--ssl-cert")):
        if tls.get(trait):
            command += [option, str(tls[trait])]
    return command


def through_the_proxy(settings: Settings) -> tuple[str, str, str]:
    """The hub's health as a browser would ask for it: address, no token, and the host to name."""
    host = settings.web.host
    if host in ("", EVERYWHERE):
        host = "127.0.0.1"
    elif ":" in host:
        host = "[::1]" if host == "::" else f"[{host}]"
    tls = "ssl_cert" in settings.jupyterhub.get("JupyterHub", {})
    url = f"http{'s' if tls else ''}://{host}:{settings.web.port}{settings.web.base_url}hub/health"
    return url, "", urlsplit(settings.web.subdomain_host).netloc


def answers(url: str, token: str = "", host: str = "") -> Probe:
    """Whether a GET there is answered with 200.

    Parameters
    ----------
    url
        Where to look.
    token
        Sent as ``Authorization`` when there is one.
    host
        The host to name, where the address alone does not say it.
    """
    headers = {"Authorization": f"token {token}"} if token else {}
    if host:
        headers["Host"] = host

    async def probe() -> bool:
        async with httpx.AsyncClient(timeout=5, trust_env=False, verify=False) as client:  # noqa: S501 - our own port
            return (await client.get(url, headers=headers)).status_code == 200

    return probe


def posts(url: str, token: str, attempts: int = 20) -> Callable[[], Awaitable[None]]:
    """POST there, again and again while the hub itself is on its way."""

    async def post() -> None:
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            for _ in range(attempts):
                try:
                    answer = await client.post(url, headers={"Authorization": f"token {token}"})
                    if answer.status_code < 400:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.5)

    return post
