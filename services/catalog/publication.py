"""What publishing shows, said before it is done (item *publishing*; CG-12, CG-14).

Pure: the caller hands in the names and sizes of the files and which data sets there are. What is found is
told, not forbidden, but for one thing: nothing that an administrator took down is published again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from galilean.errors import UserError, mark
from services.catalog.access import Item

FOUND_MOST = 20

#: Files that most likely open something to whoever has them.
_SECRET = re.compile(
    r"(\.env(\..+)?|\.netrc|\.pgpass|\.git-credentials|\.npmrc|\.pypirc|\.htpasswd|kaggle\.json|"
    r"credentials(\.json)?|id_(rsa|dsa|ecdsa|ed25519)|.+\.(pem|key|p12|pfx|kdbx|keytab|ovpn))",
    re.IGNORECASE,
)
_SECRET_FOLDERS = frozenset({".ssh", ".aws", ".kube", ".gnupg", ".docker"})


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What everybody who can sign in will see.

    Attributes
    ----------
    files, size_bytes
        How much; hidden files count.
    notebooks
        How many notebooks, whose outputs are seen, too.
    hidden
        How many files whose path has a part that begins with a dot.
    secrets
        Paths that look like keys and passwords, at most :data:`FOUND_MOST`; ``more_secrets`` are the others.
    unreadable
        Data sets (``owner/slug``) that others will not get when they run a fork.
    for_ever
        Whether it cannot be taken back.
    """

    files: int
    size_bytes: int
    notebooks: int
    hidden: int
    secrets: tuple[str, ...]
    more_secrets: int
    unreadable: tuple[str, ...]
    for_ever: bool


def looks_secret(path: str) -> bool:
    """Whether a file most likely opens something to whoever has it."""
    *folders, name = path.split("/")
    return _SECRET.fullmatch(name) is not None or not _SECRET_FOLDERS.isdisjoint(folders)


def publication(
    files: Iterable[tuple[str, int]], *, unreadable: Sequence[str] = (), for_ever: bool = False
) -> Publication:
    """What publishing would show.

    Parameters
    ----------
    files
        Path below the directory and size in bytes of each file.
    unreadable
        ``owner/slug`` of its data sets that are not public.
    for_ever
        Of a data set.
    """
    count = size = notebooks = hidden = 0
    secrets: list[str] = []
    for path, size_bytes in files:
        count, size = count + 1, size + size_bytes
        notebooks += path.endswith(".ipynb")
        hidden += any(part.startswith(".") for part in path.split("/"))
        if looks_secret(path):
            secrets.append(path)
    return Publication(
        files=count,
        size_bytes=size,
        notebooks=notebooks,
        hidden=hidden,
        secrets=tuple(secrets[:FOUND_MOST]),
        more_secrets=max(0, len(secrets) - FOUND_MOST),
        unreadable=tuple(unreadable),
        for_ever=for_ever,
    )


def check_publish(item: Item) -> None:
    """Refuse to publish what may not be.

    Raises
    ------
    UserError
        403 for what an administrator took down, 409 for what lies in the bin.
    """
    if item.taken_down_at is not None:
        raise UserError(
            403, mark("An administrator took this down. It can be published again when they allow it.")
        )
    if item.deleted_at is not None:
        raise UserError(409, mark("This lies in the bin. Restore it first."))


def check_unpublish(kind: str) -> None:
    """Refuse to make a public data set private (CG-12); the database refuses it, too.

    Raises
    ------
    UserError
        409 with the reason.
    """
    if kind == "dataset":
        raise UserError(
            409,
            mark(
                "A public data set stays public: other people's projects rest on it. An administrator can take "
                "it down."
            ),
            reason="public-for-ever",
        )
