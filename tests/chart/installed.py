"""The chart, installed in the lab as a centre would, and looked at like the product on one machine.

Databases are a PostgreSQL of the test's own on the lab's machine, or SQLite on a claim; projects are in a
directory of that machine. People come to the ClusterIP of the proxy's Service, which the machine reaches.
"""

from __future__ import annotations

import base64
import copy
import functools
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from jupyterhub.utils import subdomain_hook_idna

from galilean.db import Database
from tests.chart.conftest import CHART
from tests.lab.images import built, load
from tests.lab.kubernetes import Kubernetes
from tests.product.conftest import SETTINGS
from tests.product.product import Person, Product

RELEASE = "galilean"
ACCOUNT = 1000


def settings() -> dict[str, Any]:
    """Those of the product's tests, with nodes that are as small as real ones can be."""
    said: dict[str, Any] = copy.deepcopy({key: value for key, value in SETTINGS.items() if key != "process"})
    said["defaults"] = {**said["defaults"], "cpu": 0.5, "memory": "640M"}
    said["sizes"] = {"small": {"title": "Small", "cpu": 0.5, "memory": "640M"}}
    return said


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both, the second on top, section by section."""
    found = dict(one)
    for key, value in other.items():
        here = found.get(key)
        found[key] = merged(here, value) if isinstance(here, dict) and isinstance(value, dict) else value
    return found


def image(kubernetes: Kubernetes, name: str) -> str:
    """The reference of an image of this clone, in the lab; ``GALILEAN_<NAME>_IMAGE`` names another archive."""
    named = os.environ.get(f"GALILEAN_{name.upper()}_IMAGE")
    return load(kubernetes.directory, Path(named) if named else built(name)[1])


class ByHost(httpx.Client):
    """Names, for each path, the host to which it belongs where each person's nodes have one of their own."""

    def __init__(self, domain: str, **more: Any) -> None:
        super().__init__(**more)
        self.domain = domain

    def request(self, method: str, url: Any, **more: Any) -> httpx.Response:
        more["headers"] = {"Host": self.host_of(str(url)), **(more.get("headers") or {})}
        return super().request(method, url, **more)

    def host_of(self, path: str) -> str:
        if path.startswith("/services/portal"):
            return subdomain_hook_idna("portal", self.domain, "service")
        if path.startswith("/user/"):
            return subdomain_hook_idna(path.split("/")[2], self.domain, "user")
        return self.domain


class Installed(Product):
    """A release of the chart in a namespace of its own.

    Parameters
    ----------
    kubernetes
        The lab.
    namespace
        Made here, with Pod Security enforced.
    place
        A directory of the machine for projects (and for SQLite's files).
    values
        Besides those that any install in the lab needs.
    """

    def __init__(self, kubernetes: Kubernetes, namespace: str, place: Path, values: dict[str, Any]) -> None:
        self.kubernetes, self.namespace, self.place = kubernetes, namespace, place
        self.url, self.http = "", httpx.Client()
        self._db: Database | None = None
        self._roles: dict[str, str] = {}
        self.database_url = ""
        images = {name: image(kubernetes, name) for name in ("control", "proxy")}
        images["node"] = kubernetes.image
        common: dict[str, Any] = {
            "images": {
                name: {"repository": reference.rpartition(":")[0], "tag": reference.rpartition(":")[2]}
                for name, reference in images.items()
            },
            "config": settings(),
        }
        for claim in ("projects", "state"):
            folder = place / claim
            folder.mkdir(parents=True)
            os.chown(folder, ACCOUNT, ACCOUNT)
            common.setdefault("storage", {})[claim] = {"path": str(folder)}
        self.values = merged(common, values)
        self.kubectl("create", "namespace", namespace, of_all=True)
        self.kubectl(
            "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted", of_all=True
        )

    # ---- the tools

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True, of_all: bool = False) -> str:
        where = () if of_all else ("--namespace", self.namespace)
        return self.kubernetes.kubectl(*where, *words, stdin=stdin, check=check)

    def helm(self, *words: str, values: dict[str, Any] | None = None) -> str:
        from tests.lab.build import build

        with tempfile.TemporaryDirectory() as home:
            more = []
            if values is not None:
                (Path(home) / "values.yaml").write_text(json.dumps(values))
                more = ["-f", f"{home}/values.yaml"]
            done = subprocess.run(
                [
                    str(build() / "helm"),
                    *("--kubeconfig", str(self.kubernetes.directory / "pki" / "admin.kubeconfig")),
                    *("--namespace", self.namespace),
                    *words,
                    *more,
                ],
                env={"HOME": home, "PATH": "/usr/bin:/bin"},
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
        assert done.returncode == 0, f"helm {' '.join(words)}: {done.stdout}{done.stderr}\n{self.said()}"
        return done.stdout

    def command(self, *words: str, stdin: str = "", code: int | None = 0) -> str:
        """``galilean …`` where an administrator calls it: in the hub's pod."""
        where = ("exec", "-i", f"deploy/{RELEASE}-hub", "-c", "hub", "--")
        return self.kubectl(*where, "galilean", *words, stdin=stdin, check=code == 0)

    # ---- its life

    def install(self) -> None:
        """Install, wait until every part works, and find the way in."""
        self.helm("install", RELEASE, str(CHART), "--wait", "--timeout", "480s", values=self.values)
        self.find()

    def upgrade(self, values: dict[str, Any]) -> None:
        self.values = merged(self.values, values)
        self.helm("upgrade", RELEASE, str(CHART), "--wait", "--timeout", "480s", values=self.values)

    def uninstall(self) -> None:
        self.helm("uninstall", RELEASE, "--wait", "--timeout", "480s")

    def find(self) -> None:
        """The proxy's address, as the machine reaches it."""
        service = self.get("service", f"{RELEASE}-proxy")
        self.url = f"http://{service['spec']['clusterIP']}"
        self.http.close()
        split = self.values["config"].get("web", {}).get("subdomain_host", "")
        # A connection to a pod that has just gone away is never made: soon tried again, it reaches the next one.
        patience = httpx.Timeout(30, connect=3)
        how: dict[str, Any] = {"base_url": self.url, "timeout": patience, "trust_env": False}
        self.http = ByHost(urlsplit(split).netloc, **how) if split else httpx.Client(**how)

    def close(self) -> None:
        self.http.close()
        if self._db:
            self._db.close()
        self.kubectl("delete", "namespace", self.namespace, "--wait=false", of_all=True)
        for kind in ("clusterrole", "clusterrolebinding", "pv"):
            names = self.kubectl("get", kind, "-o", "name", of_all=True).split()
            ours = [name for name in names if name.partition("/")[2].startswith(f"{self.namespace}-")]
            if ours:
                self.kubectl("delete", *ours, "--wait=false", of_all=True)

    def said(self, lines: int = 40) -> str:
        """What the parts said last, and what Kubernetes says of them."""
        told = [self.kubectl("get", "pods", "-o", "wide", check=False)]
        told.append(self.kubectl("get", "events", "--sort-by=.lastTimestamp", check=False)[-3000:])
        told.append(
            self.kubectl(
                *("logs", "-l", f"app.kubernetes.io/instance={RELEASE}", "--all-containers", "--prefix"),
                *("--max-log-requests=30", f"--tail={lines}", "--ignore-errors"),
                check=False,
            )
        )
        return "\n".join(told)

    # ---- its objects

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads(self.kubectl("get", kind, name, "-o", "json"))

    def every(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind in the namespace, but those that Kubernetes itself puts into each."""
        found = json.loads(self.kubectl("get", kind, "-l", selector, "-o", "json"))["items"]
        own = {"kube-root-ca.crt", "default"}
        return [item for item in found if item["metadata"]["name"] not in own]

    def pods(self, selector: str) -> dict[str, str]:
        """Name → uid."""
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self.every("pods", selector)}

    def nodes(self, run: str) -> dict[str, str]:
        return self.pods(f"galilean.io/run={run}")

    def part(self, name: str) -> str:
        """The one pod of a part."""
        (pod,) = self.pods(f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={name}")
        return pod

    def ready(self, name: str) -> bool:
        status = self.get("deployment", f"{RELEASE}-{name}").get("status", {})
        return status.get("readyReplicas", 0) == 1 and status.get("replicas", 0) == 1

    @property
    def db(self) -> Database:
        if self._db is None:
            self._db = Database(self.database_url, threads=2)
        return self._db

    @functools.cached_property
    def admin(self) -> Person:
        return Person(self, "admin", self.command("token", "admin").strip().splitlines()[-1])

    def password(self) -> str:
        """The first administrator's, as the notes say how to read it."""
        return base64.b64decode(self.get("secret", f"{RELEASE}-secrets")["data"]["admin-password"]).decode()
