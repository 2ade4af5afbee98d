"""The images of nodes, each started in a cluster of two and made to do what it is for; built first, which takes long."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.catalog.starter import starter_notebook
from spawner.docker import names
from tests import repositories
from tests.desktop import story
from tests.docker.daemon import Daemon
from tests.docker.hub import DockerHub
from tests.docker.test_build import built
from tests.docker.test_product import DockerProduct
from tests.product.product import wait_for

ROOT = Path(__file__).parents[2]
PYTHON = "/opt/galilean/bin/python"
pytestmark = [pytest.mark.images, pytest.mark.timeout(3600)]

NODES = 2
GREET = """
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank, size, sum = 0, length;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Get_processor_name(name, &length);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("%s %d %d\\n", name, size, sum);
    MPI_Finalize();
}
"""
SUM = "from mpi4py import MPI; c = MPI.COMM_WORLD; print(MPI.Get_processor_name(), c.allreduce(c.rank + 1))"
TRAIN = """
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo")
torch.manual_seed(dist.get_rank())
model = DistributedDataParallel(torch.nn.Linear(1, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x = torch.rand(64, 1)
for _ in range(400):
    optimizer.zero_grad()
    loss = ((model(x) - (3 * x + 1)) ** 2).mean()
    loss.backward()
    optimizer.step()
weight = model.module.weight.item()
print(dist.get_rank(), dist.get_world_size(), round(weight, 1), float(loss) < 0.01)
"""
#: Looks at a VNC server on a unix socket as a viewer does: how many colours, and how much of it is lit.
LOOK = """
import socket, struct, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(sys.argv[1])
def read(n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data)); assert more; data += more
    return data
read(12); s.sendall(b"RFB 003.008\\n")
kinds = read(read(1)[0]); assert 1 in kinds; s.sendall(b"\\x01"); assert read(4) == bytes(4)
s.sendall(b"\\x01")
width, height = struct.unpack(">HH", read(4)); read(16); read(struct.unpack(">I", read(4))[0])
s.sendall(struct.pack(">BxHi", 2, 1, 0))
s.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
picture = bytearray(4 * width * height); left = width * height
while left > 0:
    kind = read(1)[0]
    if kind == 0:
        for _ in range(struct.unpack(">xH", read(3))[0]):
            x, y, w, h, encoding = struct.unpack(">HHHHi", read(12)); assert encoding == 0
            for row in range(y, y + h):
                picture[4 * (row * width + x):4 * (row * width + x + w)] = read(4 * w)
            left -= w * h
    elif kind == 3:
        read(3); read(struct.unpack(">I", read(4))[0])
colours = {bytes(picture[i:i + 3]) for i in range(0, len(picture), 4)}
with open("/tmp/screen.ppm", "wb") as file:
    file.write(b"P6 %d %d 255\\n" % (width, height))
    for i in range(0, len(picture), 4):
        file.write(bytes((picture[i + 2], picture[i + 1], picture[i])))
print(width, height, len(colours))
"""
DRAW = """
import os, subprocess, sys, time
os.environ.update(DISPLAY=":7", XDG_RUNTIME_DIR="/tmp/run")
os.makedirs("/tmp/run", 0o700, exist_ok=True)
subprocess.Popen(["Xtigervnc", ":7", "-rfbunixpath", "/tmp/vnc", "-rfbport", "-1", "-SecurityTypes", "None",
                  "-geometry", "1024x768", "-depth", "24"], start_new_session=True)
while not os.path.exists("/tmp/.X11-unix/X7"):
    time.sleep(0.1)
if sys.argv[1:]:
    subprocess.Popen(["dbus-run-session", "--", "xfce4-session"], start_new_session=True,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.Popen(["xfce4-terminal", "--disable-server", "-e", "sh -c 'echo 量子 Galilean; sleep 600'"],
                     start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


@pytest.fixture(scope="module")
def image(daemon: Daemon) -> Callable[[str], str]:
    """An image of this clone, built if need be and brought to the tests' Docker."""

    def built(name: str) -> str:
        command = [sys.executable, str(ROOT / "scripts" / "images.py"), name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        _, reference, archive = done.stdout.strip().split("\t")
        daemon.load(archive)
        return reference

    return built


@pytest.fixture
def cluster(
    image: Callable[[str], str], hub_of: Callable[..., DockerHub], request: pytest.FixtureRequest
) -> Iterator[DockerHub]:
    """A cluster called *it* of two nodes from the image that the test names."""
    reference = image(request.param)
    hub = hub_of(image=reference, command=[PYTHON, "-m", "spawner.node.container"], mounts=[], python_path="")
    hub.run("it", nodes=NODES, memory="2G", cpu=0.9, seconds=400)
    yield hub
    hub.release("it")
    hub.stop()


def write(hub: DockerHub, name: str, text: str) -> None:
    """Put a file into the project."""
    (hub.work / "ada" / "it" / name).write_text(text)


def login(hub: DockerHub, command: str, rank: int = 0) -> str:
    """What a command says to whoever typed it in a terminal of a node."""
    return hub.daemon.execute(hub.container("it"), "ssh", f"node-{rank}", command)


@pytest.mark.parametrize("cluster", ["jupyter"], indirect=True)
def test_jupyter_has_its_pages_and_runs_parallel_python_without_options(cluster: DockerHub) -> None:
    write(cluster, "sum.py", SUM)
    said = sorted(login(cluster, "mpirun python3 sum.py").splitlines())
    assert said == ["node-0 3", "node-1 3"]
    assert "JupyterLab" in login(cluster, "jupyter --version")
    notices = cluster.daemon.execute(cluster.container("it"), "cat", "/usr/share/galilean/NOTICES")
    assert "/usr/share/doc/openssh-server/copyright" in notices
    assert "jupyterlab\t" in notices
    assert "labextensions" in notices or "novnc" in notices.lower()


@pytest.mark.parametrize("cluster", ["jupyter"], indirect=True)
def test_the_first_notebook_has_both_nodes_at_work(cluster: DockerHub) -> None:
    write(cluster, "welcome.ipynb", starter_notebook("en").decode())
    # Over ssh as in a terminal; the notebook is written back with what it said.
    said = login(cluster, "jupyter execute --inplace --timeout=200 welcome.ipynb 2>&1")
    cells = json.loads((cluster.work / "ada" / "it" / "welcome.ipynb").read_text())["cells"]
    (shown,) = cells[-1]["outputs"]
    assert "π ≈ 3.14" in "".join(shown["data"]["text/plain"]), said
    assert "'node-0': " in "".join(shown["data"]["text/plain"])
    assert "'node-1': " in "".join(shown["data"]["text/plain"])


SITE = "galilean-test:site"


def with_packages_of_its_own(daemon: Daemon, reference: str, directory: Path) -> None:
    """The image as a centre has it whose apt and pip ask places of its own: here folders in it."""
    files = directory / "files"
    repositories.repository(files / "srv/apt", directory / "scratch")
    repositories.index(files / "srv/simple")
    for name, text in (
        ("etc/apt/sources.list", "deb [trusted=yes] file:/srv/apt ./\n"),
        ("etc/pip.conf", "[global]\nindex-url = file:///srv/simple\n"),
    ):
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(text)
    (directory / "Dockerfile").write_text(
        f"FROM {reference}\nUSER root\nRUN rm -rf /etc/apt/sources.list.d\nCOPY files/ /\nUSER 1000\n"
    )
    told = list(daemon.client.build(path=str(directory), tag=SITE, decode=True, rm=True))
    assert not [line for line in told if "error" in line], told


def test_a_project_with_apt_txt_and_requirements_txt_becomes_an_image_that_has_both(
    image: Callable[[str], str], daemon: Daemon, tmp_path: Path
) -> None:
    with_packages_of_its_own(daemon, image("jupyter"), tmp_path)
    directory = daemon.directory.parent / "of-lists"
    directory.mkdir(mode=0o755)
    product = DockerProduct(
        directory,
        daemon,
        {
            "docker": {"image": SITE, "url": daemon.url, "cpu_overcommit": 8, "instance": "lists"},
            "environments": {"jupyter": {"title": "JupyterLab"}},
            "images": {"builds": {"allowed": True, "cpu": 1, "memory": "1G"}, "distribution": {"reserve_percent": 1}},
        },
        cluster={"command": [PYTHON, "-m", "spawner.node.container"]},
    )  # fmt: skip
    product.start()
    try:
        ada = product.person("ada")
        slug = ada.project("Lists")
        place = f"/projects/ada/{slug}"
        for path, text in (("apt.txt", "heat  # of the centre\n"), ("requirements.txt", "warm==2.0\n")):
            assert ada.portal("PUT", f"{place}/files/{path}", content=text.encode()).status_code == 201
        made = built(ada, f"{place}/build", "lists:1", seconds=900)
        assert made["state"] == "ready", made
        added = {(one["manager"], one["name"], one["version"]) for one in made["changes"]["packages_added"]}
        assert {("apt", "heat", "1.2"), ("pip", "warm", "2.0")} <= added
        name = ada.portal("PUT", f"/images/{made['id']}/library", json={"visibility": "own"}).json()["name"]
        answer = ada.run(slug, project=slug, nodes=NODES, cpu=0.5, memory="1G", environment=name)
        assert answer.status_code in (201, 202), answer.text
        wait_for(lambda: ada.is_ready(slug), f"{slug} is ready", seconds=400)
        nodes = daemon.containers(**{names.INSTANCE: product.instance})
        assert len(nodes) == NODES
        for node in nodes:
            text = "PYTHONPATH=/opt/heat python3 -c 'import heat, warm; print(heat.answer, warm.answer)'; cat /opt/heat/uid"
            assert daemon.execute(node["Id"], "/bin/sh", "-c", text).split() == ["42", "42", "0"]
            # The image's sudo gives nothing to nodes that no root is allowed in.
            text = "sudo -n id -u 2>&1 || echo refused; grep NoNewPrivs /proc/self/status"
            said = daemon.execute(node["Id"], "/bin/sh", "-c", text)
            assert "no new privileges" in said and "refused" in said and said.split()[-1] == "1", said
        (held,) = ada.clusters()
        lost = ada.portal("GET", f"/clusters/{held['id']}/losses").json()
        assert [(one["seen"], one["packages"]) for one in lost["nodes"]] == [(True, {})] * NODES, lost
        assert ada.stop(slug).status_code in (202, 204)
    finally:
        product.close()
        daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)


@pytest.mark.parametrize("cluster", ["mpi"], indirect=True)
def test_mpi_compiles_a_program_and_runs_it_on_every_node(cluster: DockerHub) -> None:
    write(cluster, "greet.c", GREET)
    login(cluster, "mpicc -o greet greet.c")
    assert sorted(login(cluster, "mpirun ./greet").splitlines()) == ["node-0 2 1", "node-1 2 1"]
    login(
        cluster,
        "mpifort --version && cmake --version && pkg-config --exists fftw3 || test -e /usr/include/fftw3.h",
    )


@pytest.mark.parametrize("cluster", ["pytorch-cpu"], indirect=True)
def test_pytorch_learns_a_line_on_two_nodes_at_once(cluster: DockerHub) -> None:
    write(cluster, "train.py", TRAIN)
    both = "ssh node-1 torchrun train.py > other.txt 2>&1 & torchrun train.py; wait; cat other.txt"
    said = sorted(line for line in login(cluster, both).splitlines() if line[:2] in ("0 ", "1 "))
    assert [line.split()[:2] for line in said] == [["0", "2"], ["1", "2"]], said
    weights = {line.split()[2] for line in said}
    assert len(weights) == 1, "both nodes have learnt the same"
    assert all(line.endswith("True") for line in said), said


@pytest.mark.parametrize("cluster", ["desktop"], indirect=True)
def test_a_window_is_drawn_on_the_desktop(cluster: DockerHub, tmp_path: Path) -> None:
    for name, text in (("draw.py", DRAW), ("look.py", LOOK)):
        write(cluster, name, text)
    login(cluster, "python3 draw.py session")

    def picture() -> int:
        return int(login(cluster, "python3 look.py /tmp/vnc").split()[2])

    seen = picture()
    for _ in range(60):
        if seen > 100:
            break
        login(cluster, "sleep 1")
        seen = picture()
    shown = cluster.daemon.execute(cluster.container("it"), "base64", "/tmp/screen.ppm")
    (tmp_path / "screen.b64").write_text(shown)
    assert seen > 100, "panel, icons and letters have many colours; an empty screen has one"
    missing = f"{PYTHON} -c 'from extensions.desktop.available import missing; print(missing())'"
    assert login(cluster, missing).strip() == "[]"


def test_a_person_works_on_the_desktops_of_two_nodes(
    daemon: Daemon, image: Callable[[str], str], tmp_path: Path
) -> None:
    """The same story as on this machine's own programs (test_desktop.py), with the image that people get."""
    directory = daemon.directory.parent / "images"
    directory.mkdir(mode=0o755)
    product = DockerProduct(directory, daemon, story.settings({"image": image("desktop")}), cluster={})
    try:
        product.start()
        story.tell(product, product.person("ada"), tmp_path)
    finally:
        product.close()
        daemon.machine.run("nft", "delete", "table", "inet", "galilean_docker", check=False)
