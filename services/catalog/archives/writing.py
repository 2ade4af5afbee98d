"""Projects into an archive, piece by piece as it is sent: nothing is kept anywhere.

What is changed while it is packed is packed as it is read; the sums are of what stands in the archive.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from services.catalog import covers, links, store
from services.catalog.access import Viewer, access, may_see
from services.catalog.archives import END, FORMAT, HEAD, VERSION
from services.catalog.archives.meta import DatasetMeta, NotebookMeta, ProjectMeta
from services.catalog.store import Project
from services.files import packing
from services.files.packing import Found
from services.files.paths import shown
from services.files.root import Root
from services.files.unpacking import RATIO_FROM_BYTES, Limits

NOTEBOOK_MOST_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A project on its way out."""

    meta: ProjectMeta
    root: Root
    cover: bytes = b""


def meta_of(conn: Connection, project: Project, viewer: Viewer | None = None) -> tuple[ProjectMeta, bytes]:
    """What an archive says of a project, and the bytes of its cover.

    Data sets that ``viewer`` may not read are left out: what was withdrawn is not named either. ``None`` = whoever
    has the site's files at hand.
    """
    cover = covers.get(conn, project.cover) if project.cover else None
    used = [
        one
        for one in links.links_of(conn, project.id)
        if viewer is None or may_see(access(viewer, one, one.shares, kind="dataset"))
    ]
    meta = ProjectMeta(
        id=project.id,
        owner=project.owner,
        slug=project.slug,
        name=project.name,
        description=project.description,
        environment=project.environment,
        default_request=dict(project.default_request) if project.default_request else None,
        visibility=project.visibility,  # type: ignore[arg-type]
        field=project.field,
        tags=project.tags,
        readme=project.readme,
        created_at=project.created_at,
        changed_at=project.changed_at,
        datasets=tuple(
            DatasetMeta(owner=one.owner, slug=one.slug, name=one.name, mount=one.mount, writable=one.writable)
            for one in used
        ),
        cover=project.cover if cover else "",
    )
    return meta, cover or b""


def of_ids(conn: Connection, ids: Iterable[str]) -> list[Project]:
    """Living projects by id, in the order asked for; what is not there is left out."""
    found = (store.by_id(conn, one) for one in dict.fromkeys(ids))
    return [project for project in found if project is not None]


class _Hashing(packing._Tar):
    """Notes the sum of each file as it stands in the archive."""

    def __init__(self, pipe: packing._Pipe) -> None:
        super().__init__(pipe, gz=False)
        self.sum = hashlib.sha256()
        self.head = b""
        self._keep = False

    def begin(self, found: Found, *, compress: bool) -> Any:
        self.sum, self.head = hashlib.sha256(), b""
        self._keep = found.name.endswith(".ipynb") and found.status.st_size <= NOTEBOOK_MOST_BYTES
        return super().begin(found, compress=compress)

    def _write(self, data: bytes) -> None:
        self.sum.update(data)
        if self._keep:
            self.head += data
        super()._write(data)


@dataclass
class _Archive:
    tar: _Hashing
    pipe: packing._Pipe
    manifests: dict[str, str] = field(default_factory=dict)

    def member(self, name: str, content: bytes) -> Iterator[bytes]:
        status = os.stat_result((stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, len(content), 0, int(time.time()), 0))
        add = self.tar.begin(Found(name=name, status=status, file=-1), compress=False)
        assert add is not None
        add(content)
        self.tar.end()
        if self.pipe.waiting >= packing.PIECE_BYTES:
            yield self.pipe.take()

    def project(self, number: int, one: Packed) -> Iterator[bytes]:
        place = f"projects/{number:04d}"
        yield from self.member(f"{place}/project.json", _json(one.meta.model_dump(mode="json")))
        if one.cover:
            yield from self.member(f"{place}/{one.meta.cover}", one.cover)
        left_out: list[str] = []
        lines: list[dict[str, Any]] = []
        prefix = f"{place}/files"
        with one.root.folder() as top:
            for found in packing.walk(top, (), prefix, left_out):
                name = found.name[len(prefix) + 1 :].rstrip("/")
                if found.name.rstrip("/") != prefix:
                    yield from packing._write(self.tar, self.pipe, found, False)
                    lines.append(self._line(found, name))
        gone = [shown(name[len(prefix) + 1 :]) for name in left_out]
        manifest = _json({"files": lines, "left_out": gone})
        yield from self.member(f"{place}/manifest.json", manifest)
        self.manifests[f"{number:04d}"] = hashlib.sha256(manifest).hexdigest()

    def _line(self, found: Found, name: str) -> dict[str, Any]:
        shown_name = os.fsencode(name).decode("utf-8", "backslashreplace")
        if found.link is not None:
            to = os.fsencode(found.link).decode("utf-8", "backslashreplace")
            return {"path": shown_name, "kind": "link", "to": to}
        if found.file is None:
            return {"path": shown_name, "kind": "folder"}
        line = {
            "path": shown_name,
            "kind": "file",
            "size": found.status.st_size,
            "sha256": self.tar.sum.hexdigest(),
        }
        notebook = notebook_meta(self.tar.head) if self.tar.head else None
        return line | ({"notebook": notebook.model_dump()} if notebook else {})


def notebook_meta(content: bytes) -> NotebookMeta | None:
    """What a notebook says of itself; ``None`` for what is none."""
    try:
        told = json.loads(content)
        about, cells = told.get("metadata") or {}, told.get("cells") or ()
        return NotebookMeta(
            kernel=str((about.get("kernelspec") or {}).get("name") or "")[:200],
            language=str((about.get("language_info") or {}).get("name") or "")[:200],
            cells=len(cells),
        )
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None


def write(
    projects: Iterable[Packed], *, count: int, site: str, now: datetime, compress: bool = True
) -> Iterator[bytes]:
    """Pieces of an archive. Blocks; close it to end it early.

    Parameters
    ----------
    projects
        One after another, asked for when it is their turn.
    count
        How many there are.
    site, now
        What it says of where and when it was made.
    compress
        Whether it is gzip.
    """
    pieces = _tar(projects, count=count, site=site, now=now)
    return _gzip(pieces) if compress else pieces


def _tar(projects: Iterable[Packed], *, count: int, site: str, now: datetime) -> Iterator[bytes]:
    pipe = packing._Pipe()
    archive = _Archive(_Hashing(pipe), pipe)
    head = {
        "format": FORMAT,
        "version": VERSION,
        "site": site,
        "made_at": now.isoformat(),
        "projects": count,
    }
    yield from archive.member(HEAD, _json(head))
    for number, one in enumerate(projects, 1):
        yield from archive.project(number, one)
    yield from archive.member(
        END, _json({"projects": len(archive.manifests), "manifests": archive.manifests})
    )
    archive.tar.close()
    yield pipe.take()


def _gzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    # The quickest of its levels: a campus network is faster than the others.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    most = Limits().ratio // 2
    taken = given = 0
    for piece in pieces:
        if taken + len(piece) > max(RATIO_FROM_BYTES // 2, most * given):
            # An import refuses what was packed too well, as nobody packs but to fill a disk (zeros, say): this piece
            # stays as it is, in a part of its own.
            out = packer.flush()
            whole = zlib.compressobj(0, zlib.DEFLATED, 31)
            out += whole.compress(piece) + whole.flush()
            packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        else:
            out = packer.compress(piece)
        taken, given = taken + len(piece), given + len(out)
        if out:
            yield out
    yield packer.flush()


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace") + b"\n"
