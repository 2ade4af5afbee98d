"""A Docker daemon of the tests' own, on a machine of its own: a network namespace.

Everything that Docker does to a machine's network (bridges, addresses, its many rules) happens in that
namespace and goes with it; data, socket and process ids are in one directory. Nodes are made of this machine's
own programs, mounted read-only into an image that is nothing but directories: no registry and no build.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, NotFound

from tests.process.hub import eventually

ROOT = Path(__file__).parents[2]
IMAGE = "galilean-test:node"
POOL = "10.213.0.0/16"
UID = 1000
#: Links between a namespace and this machine; a range that belongs to nobody's network.
LINKS = IPv4Network("198.18.0.0/16")
_HOSTS_OWN = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
#: What programs of this machine read besides: a desktop's defaults and type, MPI's.
_SETTINGS_OF = ("/etc/alternatives", "/etc/fonts", "/etc/openmpi", "/etc/ssh", "/etc/X11", "/etc/xdg")


def only_if_possible() -> str:
    """Why the tests with a real Docker cannot run here; empty when they can."""
    if os.geteuid() != 0:
        return "a Docker daemon of the tests' own needs root"
    needed = ("dockerd", "containerd", "runc", "iptables", "nft", "ip", "nsenter", "sudo")
    missing = [name for name in needed if not shutil.which(name)]
    return f"missing: {', '.join(missing)} (scripts/test-deps docker)" if missing else ""


class Machine:
    """A network namespace with a link to this machine."""

    def __init__(self) -> None:
        for attempt in range(200):
            number = (os.getpid() + attempt * 97) % (LINKS.num_addresses // 4 - 1) + 1
            link = IPv4Network((int(LINKS.network_address) + 4 * number, 30))
            self.name = f"galilean-{number}"
            self.outside, self.address = (str(host) for host in link.hosts())
            if _ip("netns", "add", self.name, check=False) == 0:
                break
        else:
            raise RuntimeError("no free name for a network namespace")
        self._here = f"gt{number}"
        try:
            _ip("link", "add", self._here, "type", "veth", "peer", "name", "out", "netns", self.name)
            _ip("addr", "add", f"{self.outside}/30", "dev", self._here)
            _ip("link", "set", self._here, "up")
            self.run("ip", "addr", "add", f"{self.address}/30", "dev", "out")
            self.run("ip", "link", "set", "out", "up")
            self.run("ip", "link", "set", "lo", "up")
            self.run("ip", "route", "add", "default", "via", self.outside)
            self.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        except BaseException:
            self.close()
            raise

    def command(self, *command: str) -> list[str]:
        """A command line that runs there; only the network is another."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(self.command(*command), capture_output=True, text=True, check=False, timeout=60)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def close(self) -> None:
        _ip("netns", "delete", self.name, check=False)
        _ip("link", "delete", self._here, check=False)


def _ip(*words: str, check: bool = True) -> int:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=60)
    assert not check or done.returncode == 0, (words, done.stderr)
    return done.returncode


class Daemon:
    """dockerd of the tests' own; :meth:`stop` leaves nothing behind."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o755, parents=True)
        self.machine = Machine()
        self.socket = directory / "docker.sock"
        self.url = f"unix://{self.socket}"
        try:
            self.start()
            self.client = docker.APIClient(self.url, version="auto", timeout=60)
            self._import()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Start it; again when its containerd was slower than the few seconds that dockerd waits for it."""
        for last in (False, False, False, True):
            self._launch()
            eventually(lambda: self.process.poll() is not None or self.answers(), 120, "dockerd answers")
            if self.process.poll() is None or last:
                break
            assert "timeout waiting for containerd" in self.log(), self.log()[-3000:]
            self._containerd_is_gone()
        assert self.process.poll() is None, self.log()[-3000:]

    def _launch(self) -> None:
        with open(self.directory / "dockerd.log", "ab") as log:
            self.process = subprocess.Popen(
                self.machine.command(
                    "dockerd", "--storage-driver=overlay2", "--bridge=none", "--userland-proxy=false",
                    f"--data-root={self.directory}/data", f"--exec-root={self.directory}/exec",
                    f"--host={self.url}", f"--pidfile={self.directory}/docker.pid",
                    "--shutdown-timeout=5",
                ),
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self.directory)},
                start_new_session=True,
            )  # fmt: skip

    def answers(self) -> bool:
        try:
            client = docker.APIClient(self.url, version="auto", timeout=5)
        except DockerException:
            return False
        client.close()
        return True

    def log(self) -> str:
        return (self.directory / "dockerd.log").read_text(errors="replace")

    def kill(self) -> None:
        """Kill -9: containers live on until the next one finds them."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def end(self) -> None:
        """End it as an administrator does, with its containers."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()

    def stop(self) -> None:
        """End it and remove everything that it made."""
        if hasattr(self, "client"):
            try:
                for item in self.client.containers(all=True, quiet=True):
                    self.client.remove_container(item["Id"], force=True, v=True)
            except Exception as error:
                print(f"dockerd: {error!r}")
        if hasattr(self, "process"):
            self.end()
        self._containerd_is_gone()
        self.machine.close()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if line.split()[1].startswith(str(self.directory)):
                subprocess.run(["umount", "-l", line.split()[1]], check=False, timeout=30)
        for cgroup in Path("/sys/fs/cgroup").glob("*/docker"):
            _remove_empty(cgroup)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _containerd_is_gone(self) -> None:
        """containerd is dockerd's child and ends with it; after a kill it does not."""
        found = self.directory / "exec" / "containerd" / "containerd.pid"
        try:
            pid = int(found.read_text())
            if str(self.directory) in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGTERM)
                until = time.monotonic() + 10
                while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
                    time.sleep(0.05)
        except (OSError, ValueError):
            pass

    def load(self, archive: str) -> None:
        """Bring an image in; a large one takes longer than an answer usually may."""
        client = docker.APIClient(self.url, version="auto", timeout=900)
        try:
            with open(archive, "rb") as file:
                client.load_image(file)
        finally:
            client.close()

    # ------------------------------------------------------------------------------------------ an image

    def _import(self) -> None:
        """Directories, two accounts and links to what is mounted: all that an image of these nodes has."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            plain = ("dev", "proc", "sys", "run", "etc", "root", "home", "usr", "var")
            for name in dict.fromkeys((*plain, "tmp", "home/jovyan", *_parts())):
                mode = 0o1777 if name == "tmp" else 0o755
                _add(archive, name, mode, owner=UID if name == "home/jovyan" else 0)
            for name in ("bin", "sbin", "lib", "lib64"):
                if Path("/", name).is_symlink():
                    link = tarfile.TarInfo(name)
                    link.type, link.linkname = tarfile.SYMTYPE, os.readlink(f"/{name}")
                    archive.addfile(link)
                else:
                    _add(archive, name, 0o755)
            _add_python(archive)
            for name, text in (
                (
                    "etc/passwd",
                    f"root:x:0:0::/root:/bin/bash\njovyan:x:{UID}:{UID}::/home/jovyan:/bin/bash\n",
                ),
                ("etc/group", f"root:x:0:\njovyan:x:{UID}:\n"),
            ):
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        path = self.directory / "image.tar"
        path.write_bytes(layer.getvalue())
        repository, tag = IMAGE.split(":")
        said = self.client.import_image_from_file(str(path), repository=repository, tag=tag)
        assert "sha256" in str(said), said

    @staticmethod
    def mounts() -> list[dict[str, Any]]:
        """This machine's programs and this clone, as a node sees them."""
        places = [name for name in _HOSTS_OWN if not Path(name).is_symlink() and Path(name).is_dir()]
        places += [str(ROOT), *_SETTINGS_OF, *_python_places()]
        return [
            {"Type": "bind", "Source": place, "Target": place, "ReadOnly": True}
            for place in dict.fromkeys(places)
            if Path(place).is_dir()
        ]

    # --------------------------------------------------------------------------------------- what there is

    def containers(self, **labels: str) -> list[dict[str, Any]]:
        """What runs or ran, inspected."""
        chosen = [f"{name}={value}" for name, value in labels.items()]
        found: list[dict[str, Any]] = []
        for item in self.client.containers(all=True, filters={"label": chosen} if chosen else None):
            with suppress(NotFound):  # it was removed meanwhile
                found.append(self.client.inspect_container(item["Id"]))
        return found

    def networks(self) -> list[str]:
        return [item["Name"] for item in self.client.networks(filters={"type": "custom"})]

    def execute(self, container: str, *command: str, user: str = str(UID)) -> str:
        """What a command prints in a node."""
        made = self.client.exec_create(container, list(command), user=user)
        out = self.client.exec_start(made["Id"])
        code = self.client.exec_inspect(made["Id"])["ExitCode"]
        text = out.decode(errors="replace")
        assert code == 0, (command, code, text)
        return text


def _parts() -> list[str]:
    """Every directory on the way to what is mounted: an image has to have them, for it is not ours to write."""
    places = [str(ROOT), *_SETTINGS_OF, *_python_places()]
    found: list[str] = []
    for place in places:
        parts = Path(place).parts[1:]
        found += ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return list(dict.fromkeys(found))


def _python_places() -> list[str]:
    """Where this Python is, when it is not the system's."""
    base = Path(sys.base_prefix)
    prefix = [str(Path(sys.prefix).resolve())] if sys.prefix != sys.base_prefix else []
    return prefix + ([] if base.is_relative_to("/usr") else [str(base)])


def _add_python(archive: tarfile.TarFile) -> None:
    """Debian's Python with nothing else, so that the image runs a program also without the mounts."""
    program = Path("/usr/bin/python3").resolve()
    said = subprocess.run(
        ["ldd", str(program)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    files = {program} | {Path(word) for word in said.split() if word.startswith("/")}
    left_out = {"__pycache__", "test", "idlelib", "lib2to3", "ensurepip", "dist-packages", "pydoc_data"}
    library = Path("/usr/lib") / program.name
    for folder, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in left_out and not name.startswith("config-")]
        files |= {Path(folder, name) for name in names if name.endswith((".py", ".so"))}
    made = set(archive.getnames())
    for path in sorted(files):
        # Below /usr, where /lib and /lib64 lead to; the loader is asked for by its old name.
        place = path if path.is_relative_to("/usr") else Path("/usr" + str(path))
        for parent in [*reversed(place.parents)][1:]:
            if str(parent)[1:] not in made:
                made.add(str(parent)[1:])
                _add(archive, str(parent)[1:], 0o755)
        if str(place)[1:] not in made:
            made.add(str(place)[1:])
            archive.add(path.resolve(), str(place)[1:], recursive=False)
    for parent in ("opt", "opt/galilean", "opt/galilean/bin"):
        if parent not in made:
            _add(archive, parent, 0o755)
    link = tarfile.TarInfo("opt/galilean/bin/python")
    link.type, link.linkname = tarfile.SYMTYPE, str(program)
    archive.addfile(link)


def _add(archive: tarfile.TarFile, name: str, mode: int, owner: int = 0) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
    archive.addfile(entry)


def _remove_empty(cgroup: Path) -> None:
    try:
        cgroup.rmdir()
    except OSError:  # somebody else's Docker
        pass


def listening(machine: Machine, address: str, port: int) -> subprocess.Popen[bytes]:
    """A service of the machine itself, for nodes that try to reach it."""
    code = (
        "import socket, sys\n"
        "s = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    c, _ = s.accept(); c.sendall(b'here'); c.close()\n"
    )
    process = subprocess.Popen(
        machine.command(sys.executable, "-c", code, address, str(port)), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"ready"
    return process


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
