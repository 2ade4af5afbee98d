"""Tables of the catalogue: volumes, projects, data sets, who shares them, and what the gallery shows.

``search_text`` and ``sort_name`` are made from name, slug and description by the store, because the
databases fold letters each in its own way (SQLite knows ASCII only). ``cards`` and ``card_words`` are made
from projects and data sets by :mod:`services.catalog.cards` in the transaction of each change, for search
alone: what a person may do is asked of the rows that they were made from.

Rows of projects and data sets are never deleted: machine time keeps their names (CG-24), forks their origin.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.types import TypeEngine

from galilean.db import UTCDateTime, metadata

_LIVING: dict[str, Any] = {
    "sqlite_where": text("deleted_at IS NULL"),
    "postgresql_where": text("deleted_at IS NULL"),
}


def by_bytes(length: int) -> TypeEngine[str]:
    """Text that both databases compare and sort alike: by code point, as SQLite does anyway."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


#: ``kind`` is ``directory`` (of this machine, or mounted there) or ``claim`` (of Kubernetes). ``holds`` is
#: what new things it is for (``projects``, ``datasets``, ``both``); ``state`` is ``open``, ``closed`` (takes nothing
#: new) or ``draining`` (what is on it moves to ``drains_to``). Capacity is what was seen at ``looked_at``.
volumes = Table(
    "volumes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("path", String(1024), nullable=False),
    Column("claim", String(253), nullable=False, server_default=""),
    Column("holds", String(16), nullable=False, server_default="both"),
    Column("state", String(16), nullable=False, server_default="open"),
    Column("drains_to", String(64), nullable=False, server_default=""),
    Column("total_bytes", BigInteger),
    Column("free_bytes", BigInteger),
    Column("looked_at", UTCDateTime()),
    Column("problem", String(255), nullable=False, server_default=""),
    Column("registered_by", String(255), nullable=False, server_default=""),
    Column("created_at", UTCDateTime(), nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("slug", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    # ``workbench``: of one environment, seen nowhere as a project (services.catalog.workbenches).
    Column("kind", String(16), nullable=False, server_default="project"),
    Column("description", Text, nullable=False, server_default=""),
    Column("search_text", Text, nullable=False),
    Column("sort_name", String(255), nullable=False),
    Column("environment", String(128), nullable=False, server_default=""),
    Column("default_request", JSON),
    # private, shared (with whom stands in ``shares``) or public.
    Column("visibility", String(16), nullable=False, server_default="private"),
    Column("volume_id", String(64), ForeignKey(volumes.c.id), nullable=False),
    Column("directory", String(512), nullable=False),
    Column("created_at", UTCDateTime(), nullable=False),
    Column("changed_at", UTCDateTime(), nullable=False),
    Column("deleted_at", UTCDateTime()),
    # Its files are gone from the bin, too.
    Column("purged_at", UTCDateTime()),
    # Name of the cover's image; empty = one that is drawn.
    Column("cover", String(64), nullable=False, server_default=""),
    # The file that is shown first; empty = README.md, or the first notebook.
    Column("readme", String(255), nullable=False, server_default=""),
    Column("field", String(64), nullable=False, server_default=""),
    Column("tags", JSON, nullable=False, server_default="[]"),
    Column("published_at", UTCDateTime()),
    Column("forked_from", String(26)),
    # Who gave this fork to its owner as a member of a group; empty = its owner made it.
    Column("given_by", String(255), nullable=False, server_default=""),
    # What is being done to its files, which keeps it from being run: copying, moving, importing; empty = nothing.
    Column("busy", String(16), nullable=False, server_default=""),
    # As last counted; null = never.
    Column("size_bytes", BigInteger),
    Column("file_count", BigInteger),
    Column("measured_at", UTCDateTime()),
    # By an administrator, with a reason: nobody but the owner and administrators sees it.
    Column("taken_down_at", UTCDateTime()),
    Column("taken_down_by", String(255), nullable=False, server_default=""),
    Column("taken_down_reason", Text, nullable=False, server_default=""),
    # A slug is free again once its project is deleted; machine time keeps the old project's id and name.
    Index("uq_projects_open", "owner", "slug", unique=True, **_LIVING),
    # One workbench for each person and environment, also when two begin it at once.
    Index(
        "uq_projects_workbench",
        "owner",
        "environment",
        unique=True,
        sqlite_where=text("kind = 'workbench' AND deleted_at IS NULL"),
        postgresql_where=text("kind = 'workbench' AND deleted_at IS NULL"),
    ),
    Index(None, "owner", "changed_at"),
    Index(None, "owner", "sort_name"),
    Index(None, "forked_from"),
)

#: Once ``visibility`` is public it stays so: the database itself refuses the way back
#: (:mod:`services.catalog.public_for_ever`). ``mount`` is the directory below ``~/datasets`` where projects find it.
datasets = Table(
    "datasets",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("slug", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("summary", String(255), nullable=False, server_default=""),
    Column("description", Text, nullable=False, server_default=""),
    Column("search_text", Text, nullable=False),
    Column("sort_name", String(255), nullable=False),
    Column("mount", String(64), nullable=False),
    Column("visibility", String(16), nullable=False, server_default="private"),
    Column("volume_id", String(64), ForeignKey(volumes.c.id), nullable=False),
    Column("directory", String(512), nullable=False),
    Column("cover", String(64), nullable=False, server_default=""),
    Column("field", String(64), nullable=False, server_default=""),
    Column("tags", JSON, nullable=False, server_default="[]"),
    Column("busy", String(16), nullable=False, server_default=""),
    Column("size_bytes", BigInteger),
    Column("file_count", BigInteger),
    Column("measured_at", UTCDateTime()),
    Column("created_at", UTCDateTime(), nullable=False),
    Column("changed_at", UTCDateTime(), nullable=False),
    Column("published_at", UTCDateTime()),
    Column("deleted_at", UTCDateTime()),
    Column("purged_at", UTCDateTime()),
    Column("taken_down_at", UTCDateTime()),
    Column("taken_down_by", String(255), nullable=False, server_default=""),
    Column("taken_down_reason", Text, nullable=False, server_default=""),
    # A version that was made of another data set: of which, and its number, never given twice. Its files never change.
    Column("version_of", String(26), nullable=False, server_default=""),
    Column("version", Integer, nullable=False, server_default="0"),
    CheckConstraint("visibility IN ('private', 'shared', 'public')", name="visibility"),
    Index(
        "uq_datasets_version",
        "version_of",
        "version",
        unique=True,
        sqlite_where=text("version_of <> ''"),
        postgresql_where=text("version_of <> ''"),
    ),
    Index("uq_datasets_open", "owner", "slug", unique=True, **_LIVING),
    Index(None, "owner", "changed_at"),
)

#: Which data sets a project uses. ``mount`` is the data set's own directory or an alias; ``mount_key`` is it in
#: small letters, so that no two differ by case alone. ``writable`` counts only for the data set's owner.
project_datasets = Table(
    "project_datasets",
    metadata,
    Column("project_id", String(26), ForeignKey(projects.c.id), primary_key=True),
    Column("dataset_id", String(26), ForeignKey(datasets.c.id), primary_key=True),
    Column("mount", String(64), nullable=False),
    Column("mount_key", String(64), nullable=False),
    Column("writable", Boolean, nullable=False, server_default=false()),
    Column("added_by", String(255), nullable=False),
    Column("added_at", UTCDateTime(), nullable=False),
    UniqueConstraint("project_id", "mount_key"),
    Index(None, "dataset_id"),
)

#: To whom something is shared: ``grantee_kind`` person or group (slug of a group of people), ``access`` read, run
#: (projects only) or write (projects only). A share that is withdrawn is deleted; the audit log keeps both.
shares = Table(
    "shares",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("item_id", String(26), primary_key=True),
    Column("grantee_kind", String(16), primary_key=True),
    Column("grantee", String(255), primary_key=True),
    Column("access", String(16), nullable=False),
    Column("given_by", String(255), nullable=False),
    Column("given_at", UTCDateTime(), nullable=False),
    Index(None, "grantee", "grantee_kind", "kind"),
)

favourites = Table(
    "favourites",
    metadata,
    Column("person", String(255), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("item_id", String(26), primary_key=True),
    Column("at", UTCDateTime(), nullable=False),
)

#: What was counted already: once per person and day. Rows of days that are over may be dropped at any time.
counted = Table(
    "counted",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("item_id", String(26), primary_key=True),
    Column("what", String(16), primary_key=True),
    Column("person", String(255), primary_key=True),
    Column("day", Date, primary_key=True),
    Index(None, "day"),
)

#: What a card shows and by what it is found and sorted, of projects and data sets alike. ``shelf`` says who finds
#: it (:mod:`services.catalog.cards`). ``uses`` are forks of a project, projects that use a data set. ``version`` is
#: that of the words' rules by which it was made.
cards = Table(
    "cards",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("item_id", String(26), nullable=False),
    Column("shelf", SmallInteger, nullable=False),
    Column("version", SmallInteger, nullable=False),
    Column("taken_down", Boolean, nullable=False, server_default=false()),
    Column("owner", String(255), nullable=False),
    Column("slug", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("summary", String(255), nullable=False, server_default=""),
    Column("visibility", String(16), nullable=False),
    Column("cover", String(64), nullable=False, server_default=""),
    Column("field", String(64), nullable=False, server_default=""),
    Column("environment", String(128), nullable=False, server_default=""),
    Column("tags", JSON, nullable=False, server_default="[]"),
    Column("text", Text, nullable=False),
    Column("sort_name", by_bytes(255), nullable=False),
    Column("changed_at", UTCDateTime(), nullable=False),
    # Published, or made.
    Column("new_at", UTCDateTime(), nullable=False),
    Column("views", Integer, nullable=False, server_default="0"),
    Column("uses", Integer, nullable=False, server_default="0"),
    Column("favourites", Integer, nullable=False, server_default="0"),
    UniqueConstraint("kind", "item_id"),
    Index(None, "owner", "kind"),
    Index(None, "shelf", "changed_at", "number"),
    Index(None, "shelf", "new_at", "number"),
    Index(None, "shelf", "sort_name", "number"),
    Index(None, "shelf", "views", "number"),
    Index(None, "shelf", "uses", "number"),
    Index(None, "shelf", "favourites", "number"),
)

#: The bigram index (:mod:`services.catalog.words`): one row per card and word, found by shelf and word.
card_words = Table(
    "card_words",
    metadata,
    Column("card", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("word", by_bytes(96), primary_key=True),
    Column("shelf", SmallInteger, nullable=False),
    Index(None, "shelf", "word", "card"),
    sqlite_with_rowid=False,
)

#: Images of covers by their content (:mod:`services.catalog.covers`); ``used_at`` is when somebody last chose one.
covers = Table(
    "covers",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("used_at", UTCDateTime(), nullable=False),
)

#: Disks: storage of one person's that a run has in pieces of whole GiB (:mod:`services.catalog.disks`). A row that is
#: deleted goes on being counted until its files are gone (``purged_at``).
disks = Table(
    "disks",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("name", by_bytes(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("pool", String(64), nullable=False),
    Column("created_at", UTCDateTime(), nullable=False),
    Column("used_bytes", BigInteger),
    Column("measured_at", UTCDateTime()),
    Column("deleted_at", UTCDateTime()),
    Column("purged_at", UTCDateTime()),
    CheckConstraint("size_bytes > 0", name="size"),
    Index("uq_disks_name", "owner", "name", unique=True, **_LIVING),
    Index(
        "ix_disks_to_purge",
        "deleted_at",
        sqlite_where=text("deleted_at IS NOT NULL AND purged_at IS NULL"),
        postgresql_where=text("deleted_at IS NOT NULL AND purged_at IS NULL"),
    ),
)

#: Which run has which disk, written with the row of the run. It holds for as long as that row is open, and nobody takes
#: it back: there is no second word on whether a disk is held.
disk_uses = Table(
    "disk_uses",
    metadata,
    Column("run_id", String(26), ForeignKey("clusters.id"), primary_key=True),
    Column("disk_id", String(26), ForeignKey("disks.id"), primary_key=True),
    Column("writes", Boolean, nullable=False),
    Index(None, "disk_id"),
)
