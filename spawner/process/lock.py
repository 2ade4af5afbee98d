"""The lock file of a saved Python environment: what it stands on, and every package on top by version and digest.

A plain ``requirements.txt`` whose comments say the rest, so that anybody can read it and ``pip`` can install it. It is
made of checked parts alone (:class:`Pin` takes neither options nor addresses nor paths), so nothing in it can lead an
installer to another place than the centre's package index, and no password of an index can be in it. Its SHA-256
is what a run keeps and what the environment is known by.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from galilean.errors import UserError, mark

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[0-9][A-Za-z0-9.!+_-]*", re.ASCII)
_HASH = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_ENVIRONMENT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_PYTHON = re.compile(r"3\.\d{1,2}", re.ASCII)
_PLATFORM = re.compile(r"[a-z0-9_]{1,20}/[a-z0-9_]{1,20}", re.ASCII)
_HEAD = "# Python environment, saved by its packages. Not to be changed by hand: it is known by its digest."
PINS_MOST = 5000


def normal(name: str) -> str:
    """A package's name as all spellings of it are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True, order=True)
class Pin:
    """A package by version, with the digests of its files in the index.

    Raises
    ------
    ValueError
        For anything that is not a name, a version or a SHA-256.
    """

    name: str
    version: str
    hashes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        good = len(self.name) <= 200 and _NAME.fullmatch(self.name)
        good = good and len(self.version) <= 200 and _VERSION.fullmatch(self.version)
        if not good or not all(_HASH.fullmatch(one) for one in self.hashes):
            raise ValueError(f"{self.name[:80]!r} {self.version[:80]!r} is no package by version and digests")


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What a saved environment is.

    Attributes
    ----------
    environment
        The one of the settings that it stands on.
    python, platform
        Such as ``3.11`` and ``linux/x86_64``.
    below
        Packages that the one below had: name → version.
    pins
        What is on top.
    installed_bytes
        What it takes once it is installed, about.
    """

    environment: str
    python: str
    platform: str
    below: Mapping[str, str] = field(default_factory=dict)
    pins: tuple[Pin, ...] = ()
    installed_bytes: int = 0

    @property
    def text(self) -> str:
        """The file."""
        lines = [
            _HEAD,
            f"# environment: {self.environment}",
            f"# python: {self.python}",
            f"# platform: {self.platform}",
            f"# installed-bytes: {self.installed_bytes}",
            "# It stands on:",
            *(f"#   {name}=={version}" for name, version in sorted(self.below.items())),
            *requirements(self.pins),
        ]
        return "\n".join(lines) + "\n"

    @property
    def digest(self) -> str:
        """``sha256:…`` of the file."""
        return f"sha256:{hashlib.sha256(self.text.encode()).hexdigest()}"

    @classmethod
    def parse(cls, text: str) -> Lock:
        """Read what :attr:`text` wrote, and nothing else.

        Raises
        ------
        UserError
            422 when it is not one.
        """
        try:
            found = cls._read(text)
            if found.text != text:
                raise ValueError("it was changed")
        except (ValueError, KeyError, IndexError) as error:
            raise UserError(
                422, mark("The lock file of this environment is broken."), reason="lock"
            ) from error
        return found

    @classmethod
    def _read(cls, text: str) -> Lock:
        said: dict[str, str] = {}
        below: dict[str, str] = {}
        pins: list[Pin] = []
        body = ""
        for line in text.splitlines():
            if line.startswith("#   "):
                name, version = line[4:].split("==")
                below[name] = Pin(name, version).version
            elif line.startswith("# ") and ": " in line:
                key, value = line[2:].split(": ", 1)
                said[key] = value
            elif not line.startswith("#"):
                body += line.rstrip("\\") if line.endswith("\\") else line + "\n"
        for line in body.splitlines():
            named, *hashes = line.split()
            name, version = named.split("==")
            pins.append(Pin(name, version, tuple(one.removeprefix("--hash=") for one in hashes)))
        good = _ENVIRONMENT.fullmatch(said["environment"]) and _PYTHON.fullmatch(said["python"])
        if not good or not _PLATFORM.fullmatch(said["platform"]) or len(pins) > PINS_MOST:
            raise ValueError("it says something else")
        return cls(
            environment=said["environment"],
            python=said["python"],
            platform=said["platform"],
            below=below,
            pins=tuple(pins),
            installed_bytes=int(said["installed-bytes"]),
        )


def requirements(pins: Iterable[Pin]) -> list[str]:
    """The lines that an installer is given."""
    lines: list[str] = []
    for pin in sorted(pins):
        parts = [f"{pin.name}=={pin.version}", *(f"    --hash={one}" for one in sorted(pin.hashes))]
        lines += [f"{part} \\" for part in parts[:-1]] + [parts[-1]]
    return lines


@dataclass(frozen=True)
class Difference:
    """What an environment has that another has not; versions before and after."""

    added: Mapping[str, str]
    changed: Mapping[str, tuple[str, str]]


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> Difference:
    """By name; what is only below stays there and is no difference."""
    return Difference(
        {name: version for name, version in sorted(after.items()) if name not in before},
        {
            name: (before[name], version)
            for name, version in sorted(after.items())
            if before.get(name, version) != version
        },
    )
