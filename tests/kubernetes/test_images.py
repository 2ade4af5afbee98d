"""The images of this clone as a cluster runs them, and what must not be in them."""

from __future__ import annotations

import functools
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.hub import Namespace
from tests.lab.images import built, load
from tests.lab.kubernetes import Kubernetes

pytestmark = pytest.mark.kubernetes
NAMES = ("control", "proxy", "jupyter")
#: Left behind by builds: package lists, caches, keys that every node would share, bytecode of nobody.
UNWANTED = re.compile(
    r"^(root/\.(cache|config|local|npm)/|tmp/.|src/|opt/tools/|run/secrets/.|usr/local/share/ca-certificates/."
    r"|var/cache/apt/archives/.*\.deb|var/lib/apt/lists/.*_Packages|var/log/(apt|dpkg)|etc/ssh/ssh_host_"
    r"|.*\.whl$|.*/\.npmrc$|.*/\.netrc$)"
)


def authorities() -> Iterator[bytes]:
    """What the machine that builds trusts beside what Debian does: the inside of each certificate."""
    places = [
        Path("/usr/local/share/ca-certificates"),
        Path(os.environ.get("GALILEAN_TEST_CA", "/nonexistent")),
    ]
    for file in (path for place in places for path in [place, *place.rglob("*")] if path.is_file()):
        for block in re.findall(
            rb"-----BEGIN CERTIFICATE-----\s+(.+?)-----END", file.read_bytes(), re.DOTALL
        ):
            yield block.splitlines()[1]


def entries(archive: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    with tarfile.open(archive) as outer:
        manifest = outer.extractfile("manifest.json")
        assert manifest
        for name in json.loads(manifest.read())[0]["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(name)) as layer:
                for entry in layer:
                    yield entry, layer


def configuration(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest
        config = tar.extractfile(json.loads(manifest.read())[0]["Config"])
        assert config
        return json.loads(config.read())


@dataclass
class Looked:
    """What one look through an image found."""

    files: int = 0
    foreign: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)


@functools.cache
def looked(name: str) -> Looked:
    foreign = list(authorities())
    found = Looked()
    for entry, layer in entries(built(name)[1]):
        found.files += 1
        path = entry.name.removeprefix("./")
        if UNWANTED.search(path) and not entry.isdir() and "/.wh." not in path:
            found.foreign.append(path)
        elif entry.isfile() and entry.size < 2_000_000 and (foreign or "ssl" in path):
            file = layer.extractfile(entry)
            content = file.read() if file else b""
            if any(mark in content for mark in foreign) or (
                b"PRIVATE KEY-----\n" in content and "ssl" in path
            ):
                found.foreign.append(f"{path} (its content)")
        if "opt/" in entry.name and not entry.issym() and (entry.uid or entry.mode & 0o022):
            found.loose.append(entry.name)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_machine_that_built_it_is_in_an_image(name: str) -> None:
    assert looked(name).files > 1000
    assert looked(name).foreign == []


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_of_an_image_tells_nothing_and_asks_for_no_rights(name: str) -> None:
    said = configuration(built(name)[1])
    assert said["config"]["User"] == "1000"
    assert not said["config"].get("Volumes")
    words = json.dumps(said)
    for value in (os.environ.get(key) for key in ("PIP_INDEX_URL", "UV_INDEX", "https_proxy")):
        assert not value or value not in words


@pytest.mark.parametrize("name", NAMES)
def test_nobody_but_root_can_change_the_programs_of_an_image(name: str) -> None:
    assert looked(name).loose == []


def run(kubernetes: Kubernetes, namespace: Namespace, name: str, *command: str) -> str:
    """What a command prints in a pod with the least rights and a root file system that is read only."""
    reference = load(kubernetes.directory, built(name)[1])
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": f"{name}-", "namespace": namespace.name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "it",
                    "image": reference,
                    "imagePullPolicy": "Never",
                    "command": list(command),
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }
    made = kubernetes.kubectl("create", "-f", "-", "-o", "name", stdin=json.dumps(pod)).strip()
    at = ("-n", namespace.name)
    for phase in ("Succeeded", "Failed"):
        seconds = "60s" if phase == "Succeeded" else "1s"
        kubernetes.kubectl("wait", *at, made, f"--for=jsonpath={{.status.phase}}={phase}", f"--timeout={seconds}", check=False)  # fmt: skip
        if kubernetes.kubectl("get", *at, made, "-o", "jsonpath={.status.phase}") == phase:
            break
    said = kubernetes.kubectl("logs", *at, made)
    phase = kubernetes.kubectl("get", *at, made, "-o", "jsonpath={.status.phase}")
    kubernetes.kubectl("delete", *at, made, "--wait=false")
    assert phase == "Succeeded", said
    return said


def test_the_node_image_has_sudo_which_is_inert_where_no_new_privileges_are_given(
    kubernetes: Kubernetes, namespace: Namespace
) -> None:
    said = run(
        kubernetes,
        namespace,
        "jupyter",
        "sh",
        "-c",
        "sudo -n id -u 2>&1 || echo refused; ls -l /usr/bin/sudo",
    )
    assert "no new privileges" in said and "refused" in said
    assert "-rwsr-xr-x 1 root root" in said


def test_the_control_image_offers_every_part(kubernetes: Kubernetes, namespace: Namespace) -> None:
    said = run(kubernetes, namespace, "control", "galilean", "part", "--help")
    for part in ("hub", "portal", "metering", "release", "queue"):
        assert part in said
    program = (
        "import os, galilean.web.assets, hub_config.wiring, services.portal.app\n"
        "from pathlib import Path\n"
        "vendor = Path(galilean.web.assets.__file__).parent / 'static' / 'vendor'\n"
        "print(os.getuid(), (vendor / 'htmx.min.js').stat().st_size > 10000)"
    )
    assert run(kubernetes, namespace, "control", "python", "-c", program).split() == ["1000", "True"]
    assert "pg_dump" in run(kubernetes, namespace, "control", "pg_dump", "--version")


def test_the_proxy_image_runs_the_proxy_of_the_lock_file(
    kubernetes: Kubernetes, namespace: Namespace
) -> None:
    locked = json.loads((Path(__file__).parents[2] / "package-lock.json").read_text())
    version = locked["packages"]["node_modules/configurable-http-proxy"]["version"]
    said = run(kubernetes, namespace, "proxy", "configurable-http-proxy", "--version")
    assert said.split() == [version]


def test_a_notebook_in_the_node_image_has_the_packages_of_a_node(
    kubernetes: Kubernetes, namespace: Namespace
) -> None:
    program = "import jupyterlab, ipykernel, mpi4py, spawner.node.container, os; print(os.getuid())"
    assert run(kubernetes, namespace, "jupyter", "/opt/galilean/bin/python", "-c", program).split() == [
        "1000"
    ]
