"""A real Docker and a real registry that reach one another, and a node to be saved."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from extensions.imagebuilder.container import Wanted
from spawner.docker import names
from spawner.process.layout import base_name
from tests.docker.daemon import IMAGE, Daemon, only_if_possible
from tests.imagebuilder.registry.server import RegistryServer

TOKEN = "0123456789abcdef" * 2
WANTED = Wanted("ada", "x", "run", 0)
INSTANCE = "t"
NAME = names.container_name(INSTANCE, base_name("ada", "x"), 0)


class OpenDaemon(Daemon):
    """A daemon that speaks plain HTTP to a registry at its machine's end of the link."""

    def _launch(self) -> None:
        machine, plain = self.machine, self.machine.command
        open_to = f"--insecure-registry={machine.outside}/32"
        machine.command = lambda *words: plain(*words, open_to) if words[0] == "dockerd" else plain(*words)  # type: ignore[method-assign]
        try:
            super()._launch()
        finally:
            machine.command = plain  # type: ignore[method-assign]


class OpenRegistry(RegistryServer):
    """A registry that the daemon's machine reaches, too."""

    def __init__(self, directory: Path, host: str) -> None:
        super().__init__(directory)
        self.host = host
        settings = yaml.safe_load(self.settings.read_text())
        settings["http"]["addr"] = f"{host}:{self.port}"
        self.settings.write_text(yaml.safe_dump(settings))

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextlib.contextmanager
def daemon_and_registry() -> Iterator[tuple[OpenDaemon, OpenRegistry]]:
    """Both of them, until the tests of a module are over."""
    if why := only_if_possible():
        pytest.skip(why)
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is missing")
    place = Path(tempfile.mkdtemp(prefix="gground-"))
    place.chmod(0o755)
    daemon = OpenDaemon(place / "d")
    registry = OpenRegistry(place / "r", daemon.machine.outside)
    try:
        registry.start()
        yield daemon, registry
    finally:
        registry.stop()
        daemon.stop()
        shutil.rmtree(place, ignore_errors=True)


def node(daemon: Daemon, *, secrets: Path | None = None, run: str = "run") -> str:
    """A node that runs, as the backend labels them; its name."""
    labels = {
        names.INSTANCE: INSTANCE,
        names.RUN: run,
        names.CLUSTER: base_name("ada", "x"),
        names.EXACT_USER: "ada",
        names.EXACT_SERVER: "x",
        names.RANK: "0",
    }
    python = "/opt/galilean/bin/python"
    mounts = (
        [{"Type": "bind", "Source": str(secrets), "Target": "/run/galilean/secrets", "ReadOnly": True}]
        if secrets
        else []
    )
    daemon.client.create_container_from_config(
        {
            "Image": IMAGE,
            "Cmd": [python, "-IS", "-c", "import time\nwhile True: time.sleep(0.02)"],
            "Labels": labels,
            "Env": [f"JUPYTERHUB_API_TOKEN={TOKEN}", "HOME=/home/jovyan"],
            "HostConfig": {"NetworkMode": "none", "Mounts": mounts},
        },
        NAME,
    )
    daemon.client.start(NAME)
    return NAME


def inside(daemon: Daemon, code: str) -> str:
    """What a line of Python prints in the node, as root."""
    return daemon.execute(NAME, "/opt/galilean/bin/python", "-IS", "-c", code, user="0")
