"""An image that a registry gives away for a name and password only, fetched by its digest."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import docker
import pytest

from spawner.collaborators import PullLogin
from spawner.docker.api import DockerAPI, PullFailed
from tests.docker.daemon import IMAGE, Daemon
from tests.imagebuilder.registry.server import RegistryServer

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
NAME, PASSWORD = "ada", "hunter2-very-secret"


class LockedRegistry(RegistryServer):
    """Beside the daemon, in its network: to Docker it is on the same machine, so it may do without TLS."""

    def __init__(self, directory: Path, daemon: Daemon) -> None:
        users = directory / "htpasswd"
        users.write_text(f"{NAME}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
        super().__init__(directory, auth={"htpasswd": {"realm": "test", "path": str(users)}})
        self._daemon = daemon

    def start(self) -> None:
        self._server = subprocess.Popen(
            self._daemon.machine.command(
                "setpriv", "--pdeathsig", "KILL", self._program, "serve", str(self.settings)
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture
def kept(daemon: Daemon, tmp_path: Path) -> Iterator[str]:
    """The tests' image in a locked registry, and nowhere else; by its digest."""
    server = LockedRegistry(tmp_path, daemon)
    server.start()
    name = f"127.0.0.1:{server.port}/site/node"
    auth = {"username": NAME, "password": PASSWORD}
    try:
        daemon.client.tag(IMAGE, name, "1")
        digest = ""
        for _ in range(50):
            told = list(daemon.client.push(name, "1", auth_config=auth, stream=True, decode=True))
            digest = next((line["aux"]["Digest"] for line in told if "aux" in line), "")
            if digest:
                break
        assert digest, told
        daemon.client.remove_image(f"{name}:1", force=True)
        yield f"{name}@{digest}"
    finally:
        server.stop()


def has(daemon: Daemon, image: str) -> bool:
    try:
        daemon.client.inspect_image(image)
    except docker.errors.ImageNotFound:
        return False
    return True


async def test_it_comes_with_its_name_and_password_alone_and_they_are_in_no_log(
    daemon: Daemon, kept: str, tmp_path: Path
) -> None:
    api = DockerAPI(daemon.url)
    try:
        for login in (None, PullLogin("x", NAME, "wrong")):
            with pytest.raises(PullFailed) as caught:
                await api.pull(kept, login)
            assert PASSWORD not in str(caught.value)
            assert not has(daemon, kept)
        await api.pull(kept, PullLogin("x", NAME, PASSWORD))
        assert has(daemon, kept)
    finally:
        api.close()
    assert PASSWORD not in daemon.log()
