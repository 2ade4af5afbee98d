"""What is asked of a database for backup and restore; :func:`store_of` answers for each kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, make_url

from galilean.errors import UserError, mark
from hub_config.backup.archive import Told


class Moment(ABC):
    """A database as it was at one moment; it stands still for the time of a ``with``."""

    revision: str

    @abstractmethod
    def copy_to(self, target: Path, told: Told) -> None:
        """Write it to a file that is not there yet."""


class Store(ABC):
    """One of the two databases of an installation.

    Attributes
    ----------
    name
        ``galilean`` or ``hub``.
    url
        Its address for SQLAlchemy.
    """

    kind: Literal["sqlite", "postgresql"]
    suffix: str
    #: Whether it is gone from its place once it was put aside.
    moves: bool

    def __init__(self, name: str, url: URL) -> None:
        self.name, self.url = name, url

    @abstractmethod
    def is_there(self) -> bool:
        """Whether it has tables."""

    @abstractmethod
    def moment(self) -> AbstractContextManager[Moment]:
        """A context manager: the :class:`Moment` of now."""

    @abstractmethod
    def put_aside(self, folder: Path, told: Told) -> None:
        """Keep what is there in a folder, even when it is damaged."""

    @abstractmethod
    def take_back(self, folder: Path) -> None:
        """Make it again what :meth:`put_aside` kept, as far as that came."""

    @abstractmethod
    def clear(self) -> None:
        """Make it as if it had never been."""

    @abstractmethod
    def load(self, file: Path, told: Told) -> None:
        """Make it what the file says; all or nothing."""


def store_of(name: str, url: str) -> Store:
    """The store at a database's address.

    Raises
    ------
    UserError
        400 for a kind that has no backup here.
    """
    from hub_config.backup.postgresql import PostgreSQLStore
    from hub_config.backup.sqlite import SQLiteStore

    parsed = make_url(url)
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        return SQLiteStore(name, parsed)
    if kind in ("postgresql", "postgres"):
        return PostgreSQLStore(name, parsed)
    raise UserError(
        400, mark("A database of the kind {kind} is not backed up here. Use its own tools."), kind=kind
    )
