"""Saved Python environments on this machine: each made once from its lock file, shared by all who run it, read-only.

``<state>/pythons/<digest of the lock>-<what it stands on>/``: a virtual environment with nothing but the packages of
the lock, over the interpreter of an environment of the settings. A file that is written last says that it is whole,
so one that was interrupted is made again. When the interpreter below has other packages than when it was saved (the
product was upgraded), it is made anew beside the old one, and whether all still fits is asked before anybody gets
it. What no row of the database names and no run holds is removed.

Who makes and who removes meet at a lock; a run's row is there before its nodes are, so whoever removes looks at the
rows with the lock in hand and never takes one away under a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.parser
import fcntl
import hashlib
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement

from galilean import disk_reserve
from galilean.errors import UserError, mark
from spawner.process import overlay
from spawner.process.installer import Installer
from spawner.process.lock import Lock, normal
from spawner.process.overlay import Base

LOCK_FILE, WHOLE = "galilean-lock.txt", "galilean-whole"
LOOK_SECONDS = 0.5
#: One that nobody has run for so long is removed, and made again when somebody does.
UNUSED_SECONDS = 30 * 86400.0
_PLACE = re.compile(r"([0-9a-f]{64})-[0-9a-f]{16}")
_DIST = re.compile(r"([A-Za-z0-9._]+)-([^-/]+)\.dist-info")
TEXT_MOST_BYTES = 4 << 20

_OTHER_PYTHON = mark(
    "This environment was saved for Python {python} on {platform}, and “{environment}” below it has Python {now} on "
    "{here} now. It has to be saved again."
)
_FITS_NO_MORE = mark(
    "“{environment}” below this environment was changed since it was saved: {package} needs {need}, and there is {found} "
    "now. It has to be saved again."
)
_NO_BASE = mark("The Python of “{environment}”, on which this environment stands, is not on this machine.")

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Made:
    """A saved environment on this machine."""

    root: Path
    size_bytes: int


def here() -> str:
    """What this machine is: ``linux/x86_64``."""
    return f"{platform.system()}/{platform.machine()}".lower()


def installed(folder: Path) -> dict[str, str]:
    """Packages in a folder: name → version, by the names of their folders alone."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder)):
            if match := _DIST.fullmatch(name):
                found[normal(match[1])] = match[2]
    return found


def below(base: Base) -> dict[str, str]:
    """Packages of a base."""
    return installed(base.packages)


def place_name(lock: Lock, base: Base) -> str:
    """The folder of a saved environment on a base as it is now."""
    text = "\n".join(
        [str(base.root), str(base.program), *(f"{n}=={v}" for n, v in sorted(below(base).items()))]
    )
    return f"{lock.digest.removeprefix('sha256:')}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def problem(lock: Lock, base: Base, texts: Mapping[str, str]) -> UserError | None:
    """Why packages do not fit any more to what is below them; ``texts`` is their metadata by name.

    Only what an environment was saved with is held against it: what did not fit then was its owner's choice.
    """
    now = below(base)
    had = {**lock.below, **{pin.name: pin.version for pin in lock.pins}}
    has = {**now, **{pin.name: pin.version for pin in lock.pins}}
    for name, text in texts.items():
        for line in email.parser.HeaderParser().parsestr(text).get_all("Requires-Dist") or ():
            try:
                need = Requirement(line)
                if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                    continue
                other = normal(need.name)
                fits = other in has and need.specifier.contains(has[other], prereleases=True)
                fitted = other in had and need.specifier.contains(had[other], prereleases=True)
            except (ValueError, RecursionError):  # what cannot be read is held against nobody
                continue
            if fitted and not fits:
                found = f"{need.name} {has[other]}" if other in has else "–"
                return UserError(
                    409,
                    _FITS_NO_MORE,
                    environment=lock.environment,
                    package=name,
                    need=f"{need.name}{need.specifier}",
                    found=found,
                    reason="environment-changed",
                )
    return None


class Pythons:
    """The saved environments of one state directory.

    Parameters
    ----------
    state
        The state directory.
    installer
        Who installs.
    """

    def __init__(self, state: Path, installer: Installer) -> None:
        self.folder = Path(state).absolute() / "pythons"
        self.installer = installer

    def base(self, python: str, environment: str) -> Base:
        """The interpreter below.

        Raises
        ------
        UserError
            409 when there is none.
        """
        found = Base.of(python)
        if found is None:
            raise UserError(409, _NO_BASE, environment=environment, reason="no-python")
        return found

    async def make(
        self, lock: Lock, base: Base, tell: Tell, say: Callable[[str], None] = lambda _: None
    ) -> Made:
        """The environment of a lock, made where it is not there yet.

        ``tell`` hears bytes so far and in all, ``say`` the lines of the installer. Cancelled, nothing of it stays.

        Raises
        ------
        UserError
            Why it cannot be.
        """
        python = base.library.removeprefix("python")
        if (lock.python, lock.platform) != (python, here()):
            raise UserError(
                409,
                _OTHER_PYTHON,
                python=lock.python,
                platform=lock.platform,
                environment=lock.environment,
                now=python,
                here=here(),
                reason="other-python",
            )
        name = await asyncio.to_thread(place_name, lock, base)
        root = self.folder / name
        if (found := whole(root)) is not None:
            return found
        async with self._locked(name):
            if (found := whole(root)) is not None:
                return found
            try:
                return await self._make(root, lock, base, tell, say)
            except BaseException:
                await asyncio.shield(asyncio.to_thread(remove, root))
                with disk_reserve.in_words(self.folder):
                    raise

    async def _make(self, root: Path, lock: Lock, base: Base, tell: Tell, say: Callable[[str], None]) -> Made:
        def begin() -> None:
            remove(root)
            overlay.make(root, base)
            (root / LOCK_FILE).write_text(lock.text, encoding="utf-8")

        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk_reserve.need(self.folder, lock.installed_bytes)
        enough = disk_reserve.watch(self.folder)
        await asyncio.to_thread(begin)
        packages = root / "lib" / base.library / "site-packages"
        work = asyncio.ensure_future(self.installer.install(root, lock.pins, say))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=LOOK_SECONDS)
                done_bytes = await asyncio.to_thread(size_of, packages)
                enough(done_bytes)
                tell(done_bytes, lock.installed_bytes)
            await work
        finally:
            if not work.done():
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await work
        return await asyncio.to_thread(self._finish, root, lock, base, packages)

    def _finish(self, root: Path, lock: Lock, base: Base, packages: Path) -> Made:
        if lock.below != below(base):
            texts = {}
            for pin in lock.pins:
                texts[f"{pin.name} {pin.version}"] = metadata_of(packages, pin.name, pin.version)
            if (error := problem(lock, base, texts)) is not None:
                raise error
        size = size_of(root)
        (root / WHOLE).write_text(f"{size}\n", encoding="ascii")
        protect(root)
        return Made(root, size)

    async def collect(
        self, wanted: Callable[[], Awaitable[set[str]]], held: Callable[[], Awaitable[set[str]]]
    ) -> list[str]:
        """Remove what nobody needs; digests of what was removed.

        Parameters
        ----------
        wanted
            Digests that some row names.
        held
            Digests of open runs: these stay in any case.
        """
        removed: list[str] = []
        for name in await asyncio.to_thread(_listed, self.folder):
            match = _PLACE.fullmatch(name)
            digest = f"sha256:{match[1]}" if match else ""
            async with self._locked(name):
                if digest in await held():
                    continue
                if digest in await wanted() and not _unused(self.folder / name):
                    continue
                await asyncio.to_thread(remove, self.folder / name)
                removed.append(digest or name)
        return removed

    @contextlib.asynccontextmanager
    async def _locked(self, name: str) -> AsyncIterator[None]:
        locks = self.folder / ".locks"
        locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        # So many files and no more; two that share one wait for one another.
        with open(locks / hashlib.sha256(name.encode()).hexdigest()[:2], "w") as file:  # noqa: ASYNC230
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(LOOK_SECONDS)
            yield


@dataclass
class _Going:
    task: asyncio.Task[Made] = field(init=False)
    done_bytes: int = 0
    total_bytes: int = 0


class Shared:
    """One making for all starts that want the same; a start that is cancelled leaves it going.

    The hub gives a start that is cancelled a second, and taking back half an environment takes longer.
    """

    def __init__(self) -> None:
        self._going: dict[str, _Going] = {}

    async def make(self, pythons: Pythons, lock: Lock, base: Base, tell: Tell) -> Made:
        """As :meth:`Pythons.make`.

        Raises
        ------
        UserError
            Why it cannot be.
        """
        going = self._going.get(lock.digest)
        if going is None or going.task.done():
            going = self._going[lock.digest] = self._begin(pythons, lock, base)
        while not going.task.done():
            await asyncio.wait({going.task}, timeout=LOOK_SECONDS)
            if going.total_bytes:
                tell(going.done_bytes, going.total_bytes)
        return going.task.result()

    def _begin(self, pythons: Pythons, lock: Lock, base: Base) -> _Going:
        going = _Going()

        def at(done_bytes: int, total_bytes: int) -> None:
            going.done_bytes, going.total_bytes = done_bytes, total_bytes

        going.task = asyncio.ensure_future(pythons.make(lock, base, at))
        going.task.add_done_callback(lambda over: over.cancelled() or over.exception())
        going.task.add_done_callback(lambda _: self._going.pop(lock.digest, None))
        return going


def whole(root: Path) -> Made | None:
    """What is there, if it is whole; notes that it was wanted now."""
    try:
        size = int((root / WHOLE).read_text(encoding="ascii"))
        os.utime(root / WHOLE)
    except (OSError, ValueError):
        return None
    return Made(root, size)


def lock_of(root: Path) -> Lock:
    """The lock that a saved environment was made from.

    Raises
    ------
    UserError
        422 when it is not that any more.
    """
    try:
        lock = Lock.parse((root / LOCK_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        lock = None
    if lock is None or not root.name.startswith(lock.digest.removeprefix("sha256:")):
        raise UserError(422, mark("The lock file of this environment is broken."), reason="lock")
    return lock


def metadata_of(packages: Path, name: str, version: str) -> str:
    """What a package says of itself; empty when it says nothing."""
    for entry in _listed(packages):
        match = _DIST.fullmatch(entry)
        if match and (normal(match[1]), match[2]) == (name, version):
            return read_text(packages / entry / "METADATA")
    return ""


def read_text(path: Path, most_bytes: int = TEXT_MOST_BYTES) -> str:
    """A plain file of somebody else's making; empty for all else: no link is followed, nothing is waited for."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(fd, "rb") as file:
        said = os.fstat(fd)
        if not stat.S_ISREG(said.st_mode) or said.st_size > most_bytes:
            return ""
        return file.read(most_bytes).decode("utf-8", "replace")


def size_of(root: Path) -> int:
    """Bytes of the plain files below a folder; no link is followed."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(OSError):
                said = os.lstat(os.path.join(folder, name))
                total += said.st_size if stat.S_ISREG(said.st_mode) else 0
    return total


def protect(root: Path) -> None:
    """Let nobody write there any more, by mistake."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path) and name != WHOLE:
                os.chmod(
                    path, 0o555 if os.access(path, os.X_OK) and f"{os.sep}bin{os.sep}" in path else 0o444
                )
        os.chmod(folder, 0o555)  # noqa: S103 - that nobody writes is the point


def remove(root: Path) -> None:
    """Remove one, protected or not; what is not there is success."""
    if not os.path.lexists(root):
        return
    for folder, _, _ in os.walk(root):
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
    shutil.rmtree(root)


def _unused(root: Path) -> bool:
    try:
        return time.time() - (root / WHOLE).stat().st_mtime > UNUSED_SECONDS
    except OSError:
        return True


def _listed(folder: Path) -> Iterable[str]:
    try:
        return [name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError:
        return []
