"""Files into a data set or project from the command line, going on where they broke off (tus 1.0.0).

A file goes in pieces with a checksum each. When the line breaks, the portal is asked how far it came; when the
command was ended, or the machine, the same command goes on: which upload is which file's stands in a journal of
the person's. A file that changed since is another file, so its upload begins anew. The portal gives a file its
name only when all of it is there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from galilean.commands.portal_client import PortalClient
from galilean.errors import UserError, mark

PIECE_BYTES = 16 << 20
KEPT_SECONDS = 7 * 86400  # as long as the portal keeps an unfinished upload
WAITS_SECONDS = (1, 2, 4, 8, 15, 30, 60, 60, 60, 60)
TUS = {"Tus-Resumable": "1.0.0"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file to upload: where it is, its place in the tree, and what tells that it is still the same."""

    path: Path
    target: str
    size_bytes: int
    changed_ns: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found below the paths that were named."""

    files: tuple[Source, ...]
    empty_folders: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for one in self.files)


def find(paths: list[Path], into: str = "") -> Found:
    """All files below some paths; a folder keeps its name, but for ``.``.

    Links inside of folders and what is no file are left out and named: what they lead to is somewhere else.

    Raises
    ------
    UserError
        404 for a path that is not there, 400 when two would get one place.
    """
    files: dict[str, Source] = {}
    empty: list[str] = []
    left_out: list[str] = []
    base = PurePosixPath(into.strip("/")) if into.strip("/") else PurePosixPath()

    def take(path: Path, target: PurePosixPath, *, follow: bool) -> None:
        info = path.stat() if follow else path.lstat()
        if not stat.S_ISREG(info.st_mode):
            left_out.append(str(path))
            return
        if str(target) in files:
            raise UserError(400, mark("Two files would be at “{path}”."), path=str(target))
        files[str(target)] = Source(
            path=path, target=str(target), size_bytes=info.st_size, changed_ns=info.st_mtime_ns
        )

    for path in paths:
        if not path.exists():
            raise UserError(404, mark("{file} cannot be read: {why}."), file=str(path), why="no such file")
        if not path.is_dir():
            take(path, base / path.name, follow=True)
            continue
        top = base / path.resolve().name if path.name and path.name != ".." else base
        for folder, folders, names in os.walk(path, onerror=_raise):
            here = Path(folder)
            target = top / PurePosixPath(*here.relative_to(path).parts)
            left_out += [str(here / name) for name in folders if (here / name).is_symlink()]
            folders[:] = sorted(name for name in folders if not (here / name).is_symlink())
            for name in sorted(names):
                take(here / name, target / name, follow=False)
            if not folders and not names and str(target) != ".":
                empty.append(str(target))
    return Found(files=tuple(files.values()), empty_folders=tuple(empty), left_out=tuple(left_out))


def _raise(error: OSError) -> None:
    raise UserError(
        403, mark("{file} cannot be read: {why}."), file=str(error.filename), why=error.strerror or str(error)
    )


class Journal:
    """Which upload is which file's: one line of JSON for each, the last one of a file counts."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path, self._now = path, now
        self._known: dict[str, str] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        kept: list[str] = []
        for line in lines:
            try:
                key, address, at = json.loads(line)
            except ValueError:
                continue  # the last line of a machine that went off
            if now() - at < KEPT_SECONDS:
                self._known[str(key)] = str(address)
                kept.append(line)
        if len(kept) != len(lines):
            self._write("".join(f"{line}\n" for line in kept), os.O_TRUNC)

    def find(self, key: str) -> str:
        """The address of a file's upload; empty when there is none."""
        return self._known.get(key, "")

    def note(self, key: str, address: str) -> None:
        """Keep the address of a file's upload."""
        self._known[key] = address
        self._write(json.dumps([key, address, int(self._now())]) + "\n", os.O_APPEND)

    def _write(self, text: str, how: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(
            os.open(self._path, os.O_WRONLY | os.O_CREAT | how, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)


def journal_place(environ: dict[str, str]) -> Path:
    """Where the journal of this person is."""
    state = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "galilean" / "uploads.jsonl"


class Uploader:
    """Puts files into one tree.

    Parameters
    ----------
    client, item
        The portal, and the path of the data set or project below ``/api/v1``.
    journal
        Of uploads begun.
    taken
        Where a name is taken: ``refuse``, ``replace`` or ``keep`` (both).
    told
        Called with the bytes of a file that are there.
    sleep
        Waits so many seconds.
    """

    def __init__(
        self,
        client: PortalClient,
        item: str,
        journal: Journal,
        *,
        taken: str = "refuse",
        told: Callable[[int], None] = lambda done: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self._item, self._journal = client, item, journal
        self._taken, self._told, self._sleep = taken, told, sleep

    def make_folder(self, path: str) -> None:
        """Make a folder; one that is there is as good."""
        try:
            self._client.request(
                "POST",
                f"{self._item}/files/{quote(os.fsencode(path))}",
                json={"kind": "folder", "parents": True},
            )
        except UserError as error:
            if error.status != 409:
                raise

    def upload(self, source: Source) -> str:
        """Put one file in, from where it stopped before; its path in the tree.

        Raises
        ------
        UserError
            What the portal refuses; 503 when it stays away; 409 when the file changes meanwhile.
        """
        key = self._key(source)
        address = self._journal.find(key)
        offset, placed = self._standing(address) if address else (None, "")
        if placed and self._is_there(placed, source.size_bytes):
            self._told(source.size_bytes)
            return placed
        if offset is None or placed:
            address, offset, placed = "", 0, ""
        try:
            with source.path.open("rb") as file:
                tries = 0
                while not placed:
                    self._told(offset)
                    file.seek(offset)
                    piece = file.read(min(PIECE_BYTES, source.size_bytes - offset))
                    self._check_same(source, os.fstat(file.fileno()))
                    try:
                        address, offset, placed = self._send(source, key, address, offset, piece)
                        tries = 0
                    except UserError as error:
                        if not _passes(error) or tries >= len(WAITS_SECONDS):
                            raise
                        self._sleep(WAITS_SECONDS[tries])
                        tries += 1
                        address = address or self._journal.find(key)
                        if address:
                            now, placed = self._patiently(address, offset)
                            address, offset = (address, now) if now is not None else ("", 0)
        except OSError as error:
            raise UserError(
                403,
                mark("{file} cannot be read: {why}."),
                file=str(source.path),
                why=error.strerror or str(error),
            ) from error
        self._told(source.size_bytes)
        return placed

    def _send(
        self, source: Source, key: str, address: str, offset: int, piece: bytes
    ) -> tuple[str, int, str]:
        headers = {
            **TUS,
            "Content-Type": "application/offset+octet-stream",
            "Upload-Checksum": "sha256 " + base64.b64encode(hashlib.sha256(piece).digest()).decode(),
        }
        if not address:
            made = self._client.request("POST", f"{self._item}/uploads", headers=self._new(source))
            address = "/" + made.headers["Location"]
            self._journal.note(key, address)
            if made.headers.get("Galilean-Path"):
                return address, source.size_bytes, made.headers["Galilean-Path"]
        answer = self._client.request(
            "PATCH", address, content=piece, headers={**headers, "Upload-Offset": str(offset)}
        )
        return address, int(answer.headers["Upload-Offset"]), answer.headers.get("Galilean-Path", "")

    def _new(self, source: Source) -> dict[str, str]:
        said = {"relativePath": source.target, "ifTaken": self._taken}
        metadata = ",".join(
            f"{key} {base64.b64encode(os.fsencode(text)).decode()}" for key, text in said.items()
        )
        return {**TUS, "Upload-Length": str(source.size_bytes), "Upload-Metadata": metadata}

    def _standing(self, address: str) -> tuple[int | None, str]:
        """How far an upload came and where its file is; ``None`` when the portal does not know it (any more)."""
        try:
            answer = self._client.request("HEAD", address, headers=TUS)
        except UserError as error:
            if error.status in (404, 410):
                return None, ""
            raise
        return int(answer.headers["Upload-Offset"]), answer.headers.get("Galilean-Path", "")

    def _patiently(self, address: str, offset: int) -> tuple[int | None, str]:
        try:
            return self._standing(address)
        except UserError as error:
            if not _passes(error):
                raise
            return offset, ""  # the next piece is refused when it is not there, and it is asked again

    def _is_there(self, placed: str, size_bytes: int) -> bool:
        try:
            answer = self._client.request("HEAD", f"{self._item}/files/{quote(placed, safe='/%')}")
        except UserError as error:
            if error.status == 404:
                return False
            raise
        return answer.headers.get("Content-Length") == str(size_bytes)

    def _check_same(self, source: Source, info: Any) -> None:
        if (info.st_size, info.st_mtime_ns) != (source.size_bytes, source.changed_ns):
            raise UserError(409, mark("{file} changed while it was uploaded."), file=str(source.path))

    def _key(self, source: Source) -> str:
        words = (
            self._client.portal,
            self._item,
            source.target,
            str(source.path.resolve()),
            str(source.size_bytes),
            str(source.changed_ns),
            self._taken,
        )
        return hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:32]


class ImageUploader(Uploader):
    """Puts one packed image in; ``said`` is what it is to be."""

    def __init__(self, client: PortalClient, journal: Journal, said: dict[str, str]) -> None:
        super().__init__(client, "/images", journal, taken=json.dumps(said, sort_keys=True))
        self._said = said

    def _new(self, source: Source) -> dict[str, str]:
        said = {"filename": source.target, **{key: text for key, text in self._said.items() if text}}
        metadata = ",".join(f"{key} {base64.b64encode(text.encode()).decode()}" for key, text in said.items())
        return {**TUS, "Upload-Length": str(source.size_bytes), "Upload-Metadata": metadata}

    def _is_there(self, placed: str, size_bytes: int) -> bool:
        return bool(placed)


def upload_image(client: PortalClient, archive: Path, said: dict[str, str], environ: dict[str, str]) -> str:
    """Upload a packed image; the id of what it becomes.

    Raises
    ------
    UserError
        404 for a file that is not there; what the portal refuses.
    """
    found = find([archive])
    if len(found.files) != 1:
        raise UserError(404, mark("{file} cannot be read: {why}."), file=str(archive), why="no file")
    return ImageUploader(client, Journal(journal_place(environ)), said).upload(found.files[0])


def _passes(error: UserError) -> bool:
    """Whether it may be better in a moment: a broken line, a restart, a piece that came in wrong, another's lock."""
    return error.status in (423, 429, 460, 502, 503, 504) or error.reason == "offset"


def batches(found: Found) -> Iterator[tuple[int, Source]]:
    """Files with the bytes that come before each."""
    before = 0
    for source in found.files:
        yield before, source
        before += source.size_bytes
