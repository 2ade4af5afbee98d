"""A real object store of a test run's own: Versity's S3 gateway over a directory.

Built from its public Go module, as the programs of the lab are: once for a machine, kept outside the clone and named by a
hash of what goes in. ``python -m tests.object_stores.server`` builds it beforehand.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import botocore.session
import httpx
from botocore.config import Config

from tests.lab.build import cache_base, fetching

SOURCES = Path(__file__).parent / "go"
PACKAGE = "github.com/versity/versitygw/cmd/versitygw"
ACCESS, SECRET = "test-access-key", "test-secret-key-that-nobody-may-see"


def program() -> Path:
    """The gateway, built when it is not there (some 2 minutes of processor time)."""
    digest = hashlib.sha256(subprocess.run(["go", "version"], capture_output=True, check=True).stdout)
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    folder = cache_base() / "object-store" / digest.hexdigest()[:20]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "versitygw"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            part = folder / "versitygw.part"
            fetching(
                [
                    "go",
                    "build",
                    "-trimpath",
                    "-buildvcs=false",
                    "-ldflags",
                    "-s -w",
                    "-o",
                    str(part),
                    PACKAGE,
                ],
                cwd=SOURCES,
                env=dict(os.environ) | {"CGO_ENABLED": "0"},
            )
            part.rename(target)
    return target


class ObjectStore:
    """The gateway on a free port of the loopback address; each folder of ``directory`` is a bucket."""

    def __init__(self, directory: Path, *, certificate: Path | None = None) -> None:
        self.directory, self.certificate = directory, certificate
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{self.host}"

    def _tls(self) -> list[str]:
        if self.certificate is None:
            return []
        return ["--cert", str(self.certificate), "--key", str(self.certificate.with_name("key.pem"))]

    def start(self) -> ObjectStore:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._server = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),
                str(program()),
                *("--port", self.host, "--health", "/health", "--quiet", *self._tls()),
                *("posix", "--sidecar", str(self._beside()), str(self.directory)),
            ],
            env=dict(os.environ) | {"ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        for _ in range(600):
            try:
                if httpx.get(f"{self.endpoint}/health", timeout=2, verify=False).status_code == 200:
                    return self
            except httpx.HTTPError:
                if self._server.poll() is not None:
                    raise RuntimeError("the object store ended at once") from None
            time.sleep(0.05)
        raise RuntimeError("the object store does not answer")

    def _beside(self) -> Path:
        beside = self.directory.with_name(f"about-{self.directory.name}")
        beside.mkdir(exist_ok=True)
        return beside

    def stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGKILL)
            self._server.wait()
            self._server = None

    def client(self) -> Any:
        """Somebody else's client of it."""
        return botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )

    def bucket(self, name: str, objects: dict[str, bytes] | None = None) -> Any:
        """A new bucket with objects in it; answers the client."""
        client = self.client()
        client.create_bucket(Bucket=name)
        for key, content in (objects or {}).items():
            client.put_object(Bucket=name, Key=key, Body=content)
        return client

    def keys(self, name: str) -> dict[str, int]:
        """Every object of a bucket with its size."""
        answer = self.client().list_objects_v2(Bucket=name)
        return {one["Key"]: one["Size"] for one in answer.get("Contents", ())}


def missing() -> str:
    """Why there can be none here; empty when there can."""
    return "" if shutil.which("go") else "Go is missing, which the object store of the tests is built with"


if __name__ == "__main__":
    print(missing() or program(), file=sys.stderr)
