"""Lock files of saved Python environments, in the database: by digest, kept for good.

A lock is some kilobytes, and says what a run of last year ran, so none is ever deleted. What is made from them on a
machine is another matter: that goes when neither a saved image nor an entry of the library is of it any more and
nobody runs it (:mod:`spawner.process.pythons`).
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import Connection, insert, select, union

from extensions.imagebuilder.names import PYTHON
from extensions.imagebuilder.tables import (
    environment_locks,
    environment_versions,
    environments,
    saved_images,
)
from spawner.tables import clusters


def keep(conn: Connection, text: str, *, now: datetime) -> str:
    """Keep a lock; its digest. The same one twice is one."""
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    if text_of(conn, digest) is None:
        conn.execute(insert(environment_locks).values(digest=digest, text=text, made_at=now))
    return digest


def text_of(conn: Connection, digest: str) -> str | None:
    """A lock by its digest."""
    return conn.execute(select(environment_locks.c.text).where(environment_locks.c.digest == digest)).scalar()


def needed(conn: Connection) -> set[str]:
    """Digests of saved environments that somebody could start or add to the library."""
    python = f"{PYTHON}/"
    of_rows = select(saved_images.c.digest).where(
        saved_images.c.state == "ready",
        saved_images.c.deleted_at.is_(None),
        saved_images.c.image.startswith(python, autoescape=True),
    )
    of_entries = (
        select(environment_versions.c.digest)
        .join(environments, environments.c.id == environment_versions.c.environment_id)
        .where(
            environments.c.deleted_at.is_(None),
            environments.c.version == environment_versions.c.number,
            environment_versions.c.image.startswith(python, autoescape=True),
        )
    )
    return set(conn.execute(union(of_rows, of_entries)).scalars())


def held(conn: Connection) -> set[str]:
    """Digests of what open runs were started from."""
    return set(
        conn.execute(select(clusters.c.environment_digest).where(clusters.c.released_at.is_(None))).scalars()
    )
