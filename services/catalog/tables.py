"""Tables of the catalogue: volumes, and the projects whose directories lie on them (CG-8, CG-36).

``search_text`` and ``sort_name`` are made from name, slug and description by the store, because the
databases fold letters each in its own way (SQLite knows ASCII only).
"""

from __future__ import annotations

from sqlalchemy import JSON, Column, ForeignKey, Index, String, Table, Text, text

from galilean.db import UTCDateTime, metadata

volumes = Table(
    "volumes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("path", String(1024), nullable=False),
    Column("created_at", UTCDateTime(), nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("slug", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("search_text", Text, nullable=False),
    Column("sort_name", String(255), nullable=False),
    Column("environment", String(128), nullable=False, server_default=""),
    Column("default_request", JSON),
    Column("visibility", String(16), nullable=False, server_default="private"),
    Column("volume_id", String(64), ForeignKey(volumes.c.id), nullable=False),
    Column("directory", String(512), nullable=False),
    Column("created_at", UTCDateTime(), nullable=False),
    Column("changed_at", UTCDateTime(), nullable=False),
    Column("deleted_at", UTCDateTime()),
    # A slug is free again once its project is deleted; machine time keeps the old project's id and name.
    Index(
        "uq_projects_open",
        "owner",
        "slug",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
    Index(None, "owner", "changed_at"),
    Index(None, "owner", "sort_name"),
)
