"""How packages are resolved and installed for saved environments: by ``uv`` where it is, else by ``pip``.

**Nothing of a package is run.** Only wheels are taken, which are unpacked; a package that the index has as source
alone is refused, because building one executes it, here as the account of the service. The interpreter that the
installers are given is one without packages of people. Where packages come from is the centre's to say
(``process.index_url``, ``process.find_links``, else what the machine's own configuration of the tool says), never the
lock's; names and passwords in such addresses are taken out of everything that is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from galilean.errors import UserError, mark
from spawner.process.lock import Pin, normal, requirements
from spawner.process.overlay import Base

#: What tools of the machine are told by; nothing of the product's own.
_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "REQUESTS_CA_BUNDLE",
)
_PREFIXES = ("PIP_", "UV_", "SSL_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
#: Settings of the tools that would put packages elsewhere.
_PLACES = (
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_USER",
    "PIP_ROOT",
    "PIP_REQUIREMENT",
    "PIP_CONSTRAINT",
    "PIP_PYTHON",
)
_LOGIN = re.compile(r"(\w+://)[^/\s@]+@")
LINES_MOST = 200

_NOT_THERE = mark(
    "The package index has no wheel for this Python of: {names}. What was installed from elsewhere, or exists as "
    "source alone, cannot be saved."
)
_FAILED = mark("The packages could not be installed: {why}")
_UNANSWERED = mark("The package index could not be asked: {why}")


@dataclass(frozen=True)
class Index:
    """Where packages come from; empty = as the machine's own configuration of the tool says."""

    url: str = ""
    find_links: str = ""

    def variables(self) -> dict[str, str]:
        """For the tools of both kinds, in nodes and in the service alike."""
        said: dict[str, str] = {}
        if self.url:
            said |= {"PIP_INDEX_URL": self.url, "UV_DEFAULT_INDEX": self.url}
        if self.find_links:
            said |= {"PIP_FIND_LINKS": self.find_links, "UV_FIND_LINKS": self.find_links}
        return said


@dataclass(frozen=True)
class Done:
    """How a command ended, and the end of what it said."""

    code: int
    out: str
    lines: tuple[str, ...]

    @property
    def why(self) -> str:
        """The last lines, for people."""
        return " ".join(" ".join(self.lines[-4:]).split())[-400:] or f"exit code {self.code}"


class Installer:
    """Asks and installs.

    Parameters
    ----------
    index
        Where packages come from.
    environ
        Of this process.
    uv
        Its path; ``None`` = looked for, empty = pip is to be taken.
    """

    def __init__(
        self, index: Index | None = None, environ: Mapping[str, str] | None = None, *, uv: str | None = None
    ) -> None:
        environ = os.environ if environ is None else environ
        beside = Path(sys.executable).with_name("uv")
        found = str(beside) if beside.exists() else shutil.which("uv") or ""
        self.uv = found if uv is None else uv
        self.environment = {
            name: value
            for name, value in environ.items()
            if (name in _KEPT or name.startswith(_PREFIXES) or name.lower() in _PROXIES)
            and name not in _PLACES
        } | (index or Index()).variables()
        self._folder = Path(index.find_links) if index and index.find_links else None
        self.environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "UV_NO_PROGRESS": "1"}

    async def pinned(self, pins: Sequence[Pin], base: Base, say: Callable[[str], None]) -> list[Pin]:
        """The same packages with the digests of their files in the index.

        Raises
        ------
        UserError
            422 naming those that it does not have as wheels; 503 when it cannot be asked.
        """
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        done = Done(0, "", ())
        # An index tells digests. Of a folder of wheels uv tells none, though it knows whether one is for this machine.
        for ask in (self._by_uv, self._by_folder, self._by_pip) if self.uv else (self._by_pip,):
            without = [pin for pin in pins if not found.get((pin.name, pin.version))]
            if without and done.code == 0:
                done, more = await ask(without, base, say)
                found |= more
        without = [pin for pin in pins if not found.get((pin.name, pin.version))]
        if not without:
            return [Pin(pin.name, pin.version, found[pin.name, pin.version]) for pin in pins]
        told = "\n".join(done.lines).lower()
        if _away(told):
            raise UserError(503, _UNANSWERED, why=done.why, reason="index-away")
        named = [pin for pin in without if f"{pin.name}=={pin.version}".lower() in told]
        names = ", ".join(f"{pin.name} {pin.version}" for pin in (named or without)[:20])
        raise UserError(422, _NOT_THERE, names=names, reason="not-in-the-index")

    async def _by_uv(
        self, pins: Sequence[Pin], base: Base, say: Callable[[str], None]
    ) -> tuple[Done, dict[tuple[str, str], tuple[str, ...]]]:
        with _file(pins) as wanted:
            done = await self.run(
                [
                    self.uv, "pip", "compile", "--no-deps", "--generate-hashes", "--no-header", "--no-annotate",
                    "--no-build", "--no-emit-index-url", "--color", "never", "--quiet",
                    "--python", str(base.program), wanted,
                ],
                say,
            )  # fmt: skip
        return done, _of_uv(done.out) if done.code == 0 else {}

    async def _by_folder(
        self, pins: Sequence[Pin], base: Base, say: Callable[[str], None]
    ) -> tuple[Done, dict[tuple[str, str], tuple[str, ...]]]:
        return Done(0, "", ()), await asyncio.to_thread(
            _of_folder, self._folder, {(p.name, p.version) for p in pins}
        )

    async def _by_pip(
        self, pins: Sequence[Pin], base: Base, say: Callable[[str], None]
    ) -> tuple[Done, dict[tuple[str, str], tuple[str, ...]]]:
        with _file(pins) as wanted:
            done = await self.run(
                [
                    sys.executable, "-I", "-m", "pip", "--python", str(base.program), "install", "--dry-run",
                    "--ignore-installed", "--no-deps", "--only-binary", ":all:", "--quiet", "--report", "-",
                    "-r", wanted,
                ],
                say,
            )  # fmt: skip
        return done, _of_pip(done.out) if done.code == 0 else {}

    async def install(self, root: Path, pins: Sequence[Pin], say: Callable[[str], None]) -> None:
        """Unpack packages into a virtual environment that has none of its own yet.

        Raises
        ------
        UserError
            422 when one cannot be had as it was locked; 503 when the index cannot be asked.
        OSError
            For a full disk.
        """
        if not pins:
            return
        with _file(pins) as locked:
            python = str(root / "bin" / "python")
            if self.uv:
                # Copies: what is read-only here must not be so in the cache of others.
                command = [
                    self.uv, "pip", "install", "--python", python, "--no-deps", "--require-hashes", "--no-build",
                    "--link-mode", "copy", "--color", "never", "-r", locked,
                ]  # fmt: skip
            else:
                command = [
                    sys.executable, "-I", "-m", "pip", "--python", python, "install", "--no-deps",
                    "--ignore-installed", "--require-hashes", "--only-binary", ":all:", "--no-compile",
                    "-r", locked,
                ]  # fmt: skip
            done = await self.run(command, say)
        if done.code:
            told = "\n".join(done.lines).lower()
            if "no space left on device" in told or "os error 28" in told:
                raise OSError(errno.ENOSPC, done.why)
            away = _away(told)
            raise UserError(
                503 if away else 422, _UNANSWERED if away else _FAILED, why=done.why, reason="install"
            )

    async def run(self, command: Sequence[str], say: Callable[[str], None]) -> Done:
        """Run a tool to its end; cancelled, it is killed with all that it started, and it dies with who is killed here.

        A tool that went on after that would write into what the next service has begun to make.
        """
        setpriv = shutil.which("setpriv")
        process = await asyncio.create_subprocess_exec(
            *((setpriv, "--pdeathsig", "KILL") if setpriv else ()),
            *command,
            env=self.environment,
            cwd="/",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=1 << 20,
        )
        assert process.stdout is not None and process.stderr is not None  # noqa: PT018
        lines: list[str] = []

        async def listen(stream: asyncio.StreamReader) -> None:
            while line := await stream.readline():
                text = without_login(line.decode(errors="replace").rstrip())[:500]
                if text:
                    del lines[: len(lines) - LINES_MOST]
                    lines.append(text)
                    say(text)

        try:
            out, _ = await asyncio.gather(process.stdout.read(), listen(process.stderr))
            code = await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code and not lines:
            lines = [without_login(one)[:500] for one in out.decode(errors="replace").splitlines()[-20:]]
        return Done(code, out.decode(errors="replace"), tuple(lines))


@contextlib.contextmanager
def _file(pins: Sequence[Pin]) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="galilean-lock-") as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("\n".join(requirements(pins)) + "\n", encoding="utf-8")
        yield str(path)


def without_login(text: str) -> str:
    """Without names and passwords in addresses."""
    return _LOGIN.sub(r"\1", text)


def _away(told: str) -> bool:
    signs = (
        "error sending request",
        "connection refused",
        "timed out",
        "dns error",
        "failed to establish a new",
    )
    return any(sign in told for sign in signs)


def _of_uv(out: str) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for line in out.replace("\\\n", " ").splitlines():
        named, *rest = line.split() or [""]
        name, _, version = named.partition("==")
        hashes = tuple(
            sorted({one.removeprefix("--hash=") for one in rest if one.startswith("--hash=sha256:")})
        )
        if version and hashes:
            found[normal(name), version] = hashes
    return found


def _of_folder(folder: Path | None, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for wheel in sorted(folder.glob("*.whl")) if folder is not None and folder.is_dir() else ():
        name, version, *_ = [*wheel.name.split("-"), ""]
        if (known := (normal(name), version)) in wanted:
            with open(wheel, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[known] = (*found.get(known, ()), f"sha256:{digest}")
    return found


def _of_pip(out: str) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for item in json.loads(out or "{}").get("install") or ():
        said = item["metadata"]
        digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if digest:
            found[normal(said["name"]), said["version"]] = (f"sha256:{digest}",)
    return found
