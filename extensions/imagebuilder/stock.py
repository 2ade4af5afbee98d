"""What an image that nobody made for us lacks of a node, as far as its layers and its config tell, and what is laid over it.

An image is adapted by layers and a config of its own, not by a build: nothing of it is run, so nothing of it can go
wrong or do harm meanwhile. Above its layers come the *parts* (images/adapter), which stand in ``/opt/galilean`` on their
own feet, and one small layer that is different for each image: the account of nodes where it has none, HOME, a
``/bin/bash`` where there is none, and the image's kernels in a form in which our JupyterLab starts them by the image's own
Python. Of the config that keeps a node from starting nothing is left: USER, ENTRYPOINT, VOLUME, ONBUILD, health checks.

All here is decided on plain data; layers are read from the lowest to the topmost, names of theirs are hostile.
"""

from __future__ import annotations

import io
import json
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

from extensions.imagebuilder import tarstream
from extensions.imagebuilder.looks import NODE_LABEL
from extensions.imagebuilder.tarstream import Source
from galilean.errors import UserError, mark
from spawner.labels import OURS
from spawner.start_command import COMMAND

PREFIX = "opt/galilean"
BASH = f"/{PREFIX}/runtime/bin/bash"
ACCOUNT = "jovyan"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What a file may have whose text is read.
TEXT_MOST_BYTES = 1 << 20
KERNELS_MOST = 50
LINKS_MOST = 1_000_000
FOLDERS_DEEP = 4
_HOPS = 40
_NO_SHELLS = ("nologin", "false", "sync", "true")
_PROGRAM = re.compile(r"python[0-9.]*|bash|jupyterhub-singleuser|Xtigervnc|Xvnc")
_KERNEL = re.compile(r"(?:(.+)/)?share/jupyter/kernels/([A-Za-z0-9._-]{1,100})/kernel\.json")
_PYTHON = re.compile(r"python[0-9.]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
#: Would make our Python another one, or our server look elsewhere. Kernels and terminals get the first kind.
_PYTHONS = re.compile(
    r"PYTHON(?!UNBUFFERED$|DONTWRITEBYTECODE$|IOENCODING$|UTF8$).*|LD_PRELOAD|LD_AUDIT|VIRTUAL_ENV"
)
_SERVERS = re.compile(r"JUPYTER_.*|JUPYTERHUB_.*|JPY_.*|GALILEAN_.*|IPYTHONDIR|HOME|USER|LOGNAME|SHELL|PWD")

_OPT = mark("/{path} of this image leads elsewhere. What nodes need has no place in it.")
_ACCOUNTS = mark("The list of accounts of this image (/etc/passwd) is no plain file that can be read.")
_MANY = mark("This image has more links than can be looked at.")


@dataclass
class View:
    """What is known of an image's files: all symbolic links, some programs, some texts.

    Attributes
    ----------
    links
        Path → where to, as written.
    programs
        Paths of programs that decide something.
    texts
        Path → content; None for a file that cannot be read as one.
    folders
        The upper folders: path → mode, uid, gid.
    prefix
        Whether there is something at our own place already.
    """

    links: dict[str, str] = field(default_factory=dict)
    programs: set[str] = field(default_factory=set)
    texts: dict[str, bytes | None] = field(default_factory=dict)
    folders: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    prefix: bool = False

    def add(self, layer: Source) -> None:
        """Look at the next layer, all of it.

        Raises
        ------
        UserError
            422 when it cannot be read.
        """
        found, gone, opaque, covered = View(), list[str](), list[str](), list[str]()
        for entry in tarstream.entries(layer):
            path, _, name = entry.path.rpartition("/")
            if name == ".wh..wh..opq":
                opaque.append(path)
            elif name.startswith(".wh."):
                gone.append(f"{path}/{name[4:]}".lstrip("/"))
            else:
                if entry.kind != tarstream.DIRECTORY or entry.path in self.links:
                    covered.append(entry.path)
                found._note(layer, entry)
        for _ in layer.rest():
            pass
        self._forget(gone, opaque, covered)
        self.links |= found.links
        self.programs |= found.programs
        self.texts |= found.texts
        self.folders |= found.folders
        self.prefix |= found.prefix
        if len(self.links) > LINKS_MOST:
            raise UserError(422, _MANY, reason="image-links")

    def _note(self, layer: Source, entry: tarstream.Entry) -> None:
        path = entry.path
        if path == PREFIX or path.startswith(f"{PREFIX}/"):
            self.prefix = True
            return
        folder, _, name = path.rpartition("/")
        if entry.kind == tarstream.SYMLINK:
            self.links[path] = entry.link
        if entry.kind == tarstream.DIRECTORY:
            if path.count("/") < FOLDERS_DEEP:
                self.folders[path] = _owned(entry)
            return
        if _PROGRAM.fullmatch(name) and posixpath.basename(folder) in ("bin", "sbin"):
            self.programs.add(path)
        if path in ("etc/passwd", "etc/group") or _KERNEL.fullmatch(path):
            plain = entry.is_file and entry.kind != b"S" and entry.size <= TEXT_MOST_BYTES
            self.texts[path] = b"".join(tarstream.data(layer, entry)) if plain else None

    def _forget(self, gone: Sequence[str], opaque: Sequence[str], covered: Sequence[str]) -> None:
        """Take away what a layer hides of those below it."""
        known: list[Any] = [self.links, self.programs, self.texts]
        above = {
            "/".join(parts[:count])
            for one in known
            for path in one
            for parts in [path.split("/")]
            for count in range(len(parts))
        }
        hidden = {*gone, *covered}
        for path in hidden:
            self.links.pop(path, None)
            self.programs.discard(path)
            self.texts.pop(path, None)
        folders = tuple(f"{path}/" if path else "" for path in {*hidden, *opaque} if path in above)
        if folders:
            self.links = {key: value for key, value in self.links.items() if not key.startswith(folders)}
            self.programs = {key for key in self.programs if not key.startswith(folders)}
            self.texts = {key: value for key, value in self.texts.items() if not key.startswith(folders)}

    def real(self, path: str) -> str:
        """Where a path really leads to, without a slash in front; links are followed as the image sees them."""
        left, at, hops = [part for part in path.split("/") if part], list[str](), 0
        while left:
            part = left.pop(0)
            if part in (".", ""):
                continue
            if part == "..":
                at = at[:-1]
                continue
            here = "/".join([*at, part])
            link = self.links.get(here)
            if link is None or hops > _HOPS:
                at.append(part)
                continue
            hops += 1
            at = [] if link.startswith("/") else at
            left = [*link.split("/"), *left]
        return "/".join(at)

    def has(self, program: str) -> bool:
        """Whether a program is there, by its path; through links that lead to one."""
        folder, _, name = program.rpartition("/")
        path = f"{self.real(folder)}/{name}".lstrip("/")
        target = self.real(path)
        return path in self.programs and (path not in self.links or target != path)

    def named(self, name: str) -> str:
        """The first place of a program; empty = it is not there."""
        return min((path for path in self.programs if posixpath.basename(path) == name), default="")


@dataclass(frozen=True, kw_only=True)
class Node:
    """How nodes run: ``account`` is uid:gid, ``home`` their HOME."""

    account: str = "1000:1000"
    home: str = "/home/jovyan"

    @property
    def uid(self) -> int:
        return int(self.account.partition(":")[0])

    @property
    def gid(self) -> int:
        return int(self.account.partition(":")[2] or self.account)


@dataclass(frozen=True)
class Kernel:
    """A kernel of the image, as our JupyterLab shall start it."""

    name: str
    spec: dict[str, Any]


def kernels(view: View, moved: Mapping[str, str]) -> tuple[list[Kernel], list[str]]:
    """The image's kernels, and the names of those that could not be started: two of one name, no such Python."""
    found: dict[str, Kernel] = {}
    left: list[str] = []
    for path in sorted(view.texts):
        match = _KERNEL.fullmatch(path)
        if match is None:
            continue
        spec = _spec(view.texts[path])
        argv = None if spec is None else _argv(view, match[1] or "", spec["argv"])
        if spec is None or argv is None or match[2] in found or len(found) >= KERNELS_MOST:
            left.append(match[2])
            continue
        said = spec.get("env")
        own = (
            {key: value for key, value in said.items() if isinstance(value, str)}
            if isinstance(said, dict)
            else {}
        )
        found[match[2]] = Kernel(match[2], {**spec, "argv": argv, "env": {**moved, **own}})
    return list(found.values()), left


def _spec(text: bytes | None) -> dict[str, Any] | None:
    try:
        spec = json.loads(text or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(spec, dict):
        return None
    argv = spec.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(one, str) for one in argv):
        return None
    return spec


def _argv(view: View, prefix: str, argv: list[str]) -> list[str] | None:
    """With the Python that the kernel was installed by: Jupyter takes its own for a bare name."""
    if argv[0].startswith("/"):
        return argv
    if not _PYTHON.fullmatch(argv[0]):
        return argv
    for name in (argv[0], "python3", "python"):
        if view.has(f"{prefix}/bin/{name}"):
            return [f"/{prefix}/bin/{name}".replace("//", "/"), *argv[1:]]
    return None


def environment(said: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The variables of the adapted image, and those that only kernels and terminals get."""
    variables: dict[str, str] = {}
    for one in said:
        name, _, value = one.partition("=")
        if _VARIABLE.fullmatch(name) and "\0" not in value:
            variables[name] = value
    moved = {name: variables.pop(name) for name in list(variables) if _PYTHONS.fullmatch(name)}
    for name in list(variables):
        if _SERVERS.fullmatch(name):
            del variables[name]
    variables["PATH"] = f"{variables.get('PATH') or PATH}:/{PREFIX}/bin"
    if not {"LANG", "LC_ALL"} & set(variables):
        variables["LANG"] = "C.UTF-8"
    return [f"{name}={value}" for name, value in variables.items()], moved


def config_of(
    base: Mapping[str, Any], added: Sequence[tuple[str, str]], node: Node, *, notices: str, now: datetime
) -> bytes:
    """The config of the adapted image.

    Parameters
    ----------
    base
        The image's own, as it came.
    added
        Layers on top of it: diff id and what it is, for the history.
    node
        How nodes run.
    notices
        Where the licences of what was added stand.
    now
        When it is made.
    """
    said = base.get("config") or {}
    labels = {
        name: text
        for name, text in (said.get("Labels") or {}).items()
        if not name.startswith((OURS, "io.galilean."))
    }
    below = list(base["rootfs"]["diff_ids"])
    history = [one for one in base.get("history") or () if isinstance(one, dict)]
    if sum(not one.get("empty_layer") for one in history) != len(below):
        history = [{"created_by": "?"} for _ in below]
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    found = {
        key: base[key] for key in ("architecture", "os", "variant", "os.version", "author") if key in base
    }
    found |= {
        "created": stamp,
        "config": {
            "Env": environment(said.get("Env") or ())[0],
            "Cmd": list(COMMAND),
            "User": node.account,
            "WorkingDir": node.home,
            "Labels": labels | {NODE_LABEL: notices},
        },
        "rootfs": {"type": "layers", "diff_ids": [*below, *(one for one, _ in added)]},
        "history": [*history, *({"created": stamp, "created_by": what} for _, what in added)],
    }
    return json.dumps(found, separators=(",", ":")).encode()


# ------------------------------------------------------------------------------------------------ the own layer


def check(view: View, node: Node) -> None:
    """Refuse an image in which the parts would hide what is there.

    Raises
    ------
    UserError
        422.
    """
    if view.real("opt") != "opt":
        raise UserError(422, _OPT, reason="image-opt", path="opt")
    for path in ("etc/passwd", "etc/group"):
        if view.real(path) != path or (path in view.texts and view.texts[path] is None):
            raise UserError(422, _ACCOUNTS, reason="image-accounts")


def write_layer(out: BinaryIO, view: View, said: Mapping[str, Any], node: Node) -> list[Kernel]:
    """Write the layer that is the image's own, packed by nobody yet; the kernels that it names."""
    moved = environment(said.get("Env") or ())[1]
    found, _ = kernels(view, moved)
    if view.programs and any(kernel.name == "python3" for kernel in found):
        spec = {
            "argv": [f"/{PREFIX}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "Python 3 (Galilean)",
            "language": "python",
        }
        found.append(Kernel("galilean", spec))
    layer = _Layer(out, view)
    home = posixpath.join(view.real(posixpath.dirname(node.home)), posixpath.basename(node.home))
    for path in (home, f"{home}/work"):
        layer.folder(path, (0o755, node.uid, node.gid))
    layer.file("etc/passwd", passwd(view.texts.get("etc/passwd") or b"", node))
    layer.file("etc/group", group(view.texts.get("etc/group") or b"", node))
    if not view.has("bin/bash"):
        layer.link(f"{view.real('bin')}/bash", BASH)
    if moved:
        lines = "".join(f"export {name}={_quoted(value)}\n" for name, value in moved.items())
        layer.file(f"{view.real('etc/profile.d')}/galilean-image.sh", lines.encode())
    for kernel in found:
        text = json.dumps(kernel.spec, indent=1).encode()
        layer.file(f"{PREFIX}/share/jupyter/kernels/{kernel.name}/kernel.json", text)
    layer.close()
    return found


def write_empty_prefix(out: BinaryIO, view: View) -> None:
    """A layer that hides whatever the image had at our place."""
    layer = _Layer(out, view)
    layer.folder(PREFIX, (0o755, 0, 0))
    layer.file(f"{PREFIX}/.wh..wh..opq", b"")
    layer.close()


def passwd(text: bytes, node: Node) -> bytes:
    """The accounts, with one of the nodes' number whose shell lets somebody in."""
    lines, found = [], False
    for line in text.splitlines():
        parts = line.split(b":")
        if len(parts) == 7 and parts[2] == str(node.uid).encode() and not found:
            found = True
            shell = parts[6].rpartition(b"/")[2].decode("utf-8", "replace")
            if not shell or shell in _NO_SHELLS:
                parts[6] = b"/bin/bash"
                line = b":".join(parts)
        lines.append(line)
    if not lines:
        lines.append(b"root:x:0:0:root:/root:/bin/bash")
    if not found:
        name = _free(lines)
        lines.append(f"{name}:x:{node.uid}:{node.gid}::{node.home}:/bin/bash".encode())
    return b"\n".join(lines) + b"\n"


def group(text: bytes, node: Node) -> bytes:
    """The groups, with one of the nodes' number."""
    lines = text.splitlines() or [b"root:x:0:"]
    if not any(line.split(b":")[2:3] == [str(node.gid).encode()] for line in lines):
        lines.append(f"{_free(lines)}:x:{node.gid}:".encode())
    return b"\n".join(lines) + b"\n"


def _free(lines: Sequence[bytes]) -> str:
    taken = {line.partition(b":")[0] for line in lines}
    return next(name for name in _names() if name.encode() not in taken)


def _names() -> Iterator[str]:
    yield ACCOUNT
    number = 2
    while True:
        yield f"{ACCOUNT}{number}"
        number += 1


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _owned(entry: tarstream.Entry) -> tuple[int, int, int]:
    header = entry.header
    mode, uid, gid = (tarstream.number(header[at : at + 8]) for at in (100, 108, 116))
    told = [entry.pax.get(name, b"") for name in (b"uid", b"gid")]
    uid, gid = (
        int(text) if text.isdigit() else number for text, number in zip(told, (uid, gid), strict=True)
    )
    return mode & 0o7777, uid, gid


class _Layer:
    """A layer that is written; a folder on the way to something is said as it is, else it would be made anew."""

    def __init__(self, out: BinaryIO, view: View) -> None:
        self._tar = tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by close
        self._view = view
        self._made: set[str] = set()

    def folder(self, path: str, owned: tuple[int, int, int]) -> None:
        entry = self._entry(path, owned)
        entry.type = tarfile.DIRTYPE
        self._tar.addfile(entry)
        self._made.add(path)

    def file(self, path: str, content: bytes) -> None:
        entry = self._entry(path, (0o644, 0, 0))
        entry.size = len(content)
        self._tar.addfile(entry, io.BytesIO(content))

    def link(self, path: str, target: str) -> None:
        entry = self._entry(path, (0o777, 0, 0))
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(entry)

    def close(self) -> None:
        self._tar.close()

    def _entry(self, path: str, owned: tuple[int, int, int]) -> tarfile.TarInfo:
        parts = path.split("/")
        for count in range(1, len(parts)):
            above = "/".join(parts[:count])
            if above not in self._made:
                self._made.add(above)
                self.folder(above, self._view.folders.get(above, (0o755, 0, 0)))
        entry = tarfile.TarInfo(path)
        entry.mode, entry.uid, entry.gid = owned
        return entry
