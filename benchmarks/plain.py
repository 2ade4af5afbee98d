"""The other side: JupyterHub as its own documentation sets it up, with SimpleLocalProcessSpawner.

The same versions, the same proxy, the same machine; a process of its own with a database of its own.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import ROOT
from tests.product.product import free_port, wait_for

CONFIG = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}/"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.db_url = "sqlite:///{directory}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{directory}/cookie"
c.ConfigurableHTTPProxy.command = ["{proxy}"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.pid_file = "{directory}/proxy.pid"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{directory}/home/{{username}}"
c.Spawner.args = ["--allow-root"]
c.JupyterHub.allow_named_servers = True
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{"name": "bench", "services": ["bench"],
    "scopes": ["admin:users", "admin:servers", "access:servers", "tokens", "proxy"]}}]
"""


class PlainHub:
    """A plain hub with one person in it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port, self.token = free_port(), secrets.token_hex(16)
        config = directory / "jupyterhub_config.py"
        config.write_text(
            CONFIG.format(
                port=self.port,
                hub_port=free_port(),
                api_port=free_port(),
                directory=directory,
                proxy=ROOT / "node_modules" / ".bin" / "configurable-http-proxy",
                token=self.token,
            ),
            encoding="utf-8",
        )
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"token {self.token}"},
            timeout=120,
            limits=httpx.Limits(max_connections=64),
        )
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTERHUB_", "GALILEAN_"))}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        with (directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(config)],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_for(
                lambda: self.http.get("/hub/api/").status_code == 200, "the plain hub answers", seconds=60
            )
            self.http.post("/hub/api/users/plain").raise_for_status()
        except BaseException:
            self.close()
            raise

    def request(self, method: str, server: str, **options: Any) -> httpx.Response:
        return self.http.request(method, f"/hub/api/users/plain/servers/{server}", **options)

    def __enter__(self) -> PlainHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and everything that it started."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.http.close()
