"""Parts as containers run them: each by ``galilean part``, with given secrets and no supervisor.

Whoever kills one here is Kubernetes' kubelet, and starts it again; nobody tells the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from hub_config.secrets import NAMES as SECRETS
from hub_config.secrets import needed_by
from tests.process.hub import clean_environment
from tests.product.product import GALILEAN, ROOT, free_port, processes_of, wait_for

pytestmark = pytest.mark.product
PASSWORD = "heat-flow-lantern-9"


class Parts:
    """An installation of parts, each a process of its own with the secrets that it needs and no others."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.state = directory, directory / "state"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        names = ("hub", "proxy_api", "portal", "metering", "release", "queue", "machines")
        self.addresses = {name: f"http://127.0.0.1:{free_port()}" for name in names}
        self.settings: dict[str, Any] = {
            "addresses": self.addresses,
            "web": {"port": self.port},
            "defaults": {"cpu": 0.1, "memory": "64M", "release": "manual"},
            "process": {"zygote": False},
        }
        (directory / "galilean.yaml").write_text(yaml.safe_dump(self.settings))
        self.values = {name: f"{number:02x}" * 32 for number, name in enumerate(SECRETS, 1)}
        self.values["admin-password"] = PASSWORD
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def secrets_of(self, part: str) -> Path:
        """What the chart would mount: only what the part needs."""
        folder = self.directory / f"secrets-{part}"
        folder.mkdir(exist_ok=True)
        for name in (*needed_by(part), *(("admin-password",) if part == "hub" else ())):
            (folder / name).write_text(self.values[name])
        return folder

    def environment(self, part: str) -> dict[str, str]:
        return clean_environment() | {
            "GALILEAN_CONFIG": str(self.directory / "galilean.yaml"),
            "GALILEAN_STATE": str(self.state),
            "GALILEAN_SECRETS": str(self.secrets_of(part)),
            "HOME": str(self.directory),
        }

    def command(self, *words: str, part: str = "hub", code: int = 0) -> str:
        done = subprocess.run(
            [GALILEAN, *words],
            cwd=self.directory, env=self.environment(part), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, part: str) -> None:
        with (self.directory / f"{part}.log").open("ab") as log:
            self.processes[part] = subprocess.Popen(
                [GALILEAN, "part", part], cwd=ROOT, env=self.environment(part), stdout=log, stderr=log
            )

    def kill(self, part: str) -> None:
        self.processes[part].kill()
        self.processes[part].wait()

    def log(self, part: str) -> str:
        return (self.directory / f"{part}.log").read_text()

    def wait_ready(self, path: str = "/hub/health") -> None:
        wait_for(
            lambda: httpx.get(self.url + path, timeout=30).status_code == 200, f"{path} answers", seconds=60
        )

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for pid in processes_of(self.state):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    made = Parts(tmp_path_factory.mktemp("parts"))
    try:
        assert "not ready" in made.command("db", "wait", "--seconds", "0", part="portal", code=1)
        made.command("db", "upgrade")
        assert "ready" in made.command("db", "wait", part="portal")
        for part in ("hub", "portal", "proxy"):  # the proxy last: the hub waits for it
            made.start(part)
        made.wait_ready()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def admin(parts: Parts) -> httpx.Client:
    token = parts.command("token", "admin", part="hub").strip()
    return httpx.Client(base_url=parts.url, headers={"Authorization": f"token {token}"}, timeout=60)


def sign_in(parts: Parts, password: str) -> bool:
    with httpx.Client(base_url=parts.url, follow_redirects=False, timeout=120) as browser:
        browser.get("/hub/login")
        form = {"username": "admin", "password": password, "_xsrf": browser.cookies["_xsrf"]}
        return browser.post("/hub/login", data=form).status_code == 302


def running(parts: Parts, admin: httpx.Client, name: str) -> str:
    slug = (
        admin.post("/services/portal/api/v1/projects", json={"name": name}).raise_for_status().json()["slug"]
    )
    admin.post(
        f"/hub/api/users/admin/servers/{slug}", json={"user_options": {"project": slug}}
    ).raise_for_status()
    wait_for(lambda: ready(admin, slug), "the cluster is ready", seconds=60)
    return slug


def ready(admin: httpx.Client, slug: str) -> bool:
    return bool(admin.get("/hub/api/users/admin").json()["servers"].get(slug, {}).get("ready"))


def works(admin: httpx.Client, slug: str) -> bool:
    return admin.get(f"/user/admin/{slug}/api/status").status_code == 200


def test_the_given_administrator_signs_in_and_no_secret_is_made_or_told(parts: Parts) -> None:
    assert sign_in(parts, PASSWORD)
    assert not sign_in(parts, "another word")
    assert sorted(path.name for path in (parts.state / "secrets").iterdir()) == ["accounts"]
    for part in ("hub", "portal", "proxy"):
        assert not [name for name, value in parts.values.items() if value in parts.log(part)]


def test_a_hub_and_a_proxy_that_are_started_again_find_one_another_by_themselves(
    parts: Parts, admin: httpx.Client
) -> None:
    slug = running(parts, admin, "Goes on")
    parts.kill("proxy")
    parts.start("proxy")  # it comes back empty, and nobody tells the hub
    wait_for(lambda: works(admin, slug), "the node answers through the new proxy", seconds=30)
    parts.wait_ready("/services/portal/api/v1/openapi.json")

    parts.kill("hub")
    assert works(admin, slug)
    parts.start("hub")
    parts.wait_ready()
    wait_for(lambda: ready(admin, slug), "the new hub knows the cluster", seconds=30)
    assert works(admin, slug)
    admin.delete(f"/hub/api/users/admin/servers/{slug}").raise_for_status()


def test_a_hub_waits_for_its_proxy_and_ends_when_it_is_told_to_meanwhile(
    parts: Parts, admin: httpx.Client
) -> None:
    parts.kill("proxy")
    parts.kill("hub")
    parts.start("hub")
    wait_for(lambda: "retrying" in parts.log("hub")[-2000:], "the hub asks for its proxy", seconds=30)
    parts.processes["hub"].terminate()
    assert parts.processes["hub"].wait(10) == 128 + signal.SIGTERM
    parts.start("hub")
    parts.start("proxy")
    parts.wait_ready()


def test_every_part_ends_by_sigterm_and_clusters_go_on(parts: Parts, admin: httpx.Client) -> None:
    slug = running(parts, admin, "Stays")
    assert works(admin, slug)  # who it is, is asked once and remembered
    for part in ("release", "metering", "queue"):
        parts.start(part)
        url = parts.addresses[part] + "/health"
        wait_for(lambda url=url: httpx.get(url).status_code == 200, f"{part} is well", seconds=30)
    for part in ("release", "metering", "queue", "portal", "hub"):
        parts.processes[part].terminate()
        assert parts.processes[part].wait(20) == 0, parts.log(part)[-3000:]
    assert works(admin, slug)
    for part in ("hub", "portal"):
        parts.start(part)
    parts.wait_ready()
    wait_for(lambda: ready(admin, slug), "the next hub knows the cluster", seconds=30)
    admin.delete(f"/hub/api/users/admin/servers/{slug}").raise_for_status()
    wait_for(lambda: not ready(admin, slug), "it is released")


def test_a_part_without_its_secret_says_which_one(parts: Parts) -> None:
    (parts.secrets_of("queue") / "token-queue").unlink()
    environment = parts.environment("queue")
    (Path(environment["GALILEAN_SECRETS"]) / "token-queue").unlink()
    done = subprocess.run(
        [GALILEAN, "part", "queue"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "token-queue" in done.stderr
    assert "Traceback" not in done.stderr
