"""Rules of release by role, who was where, and schedules (CG-30, CG-32, BX-11).

``presence`` is of a person anywhere on the platform; that of one cluster stands in its row.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table

from galilean.db import UTCDateTime, metadata
from galilean.tables import roles

#: Of a role; null = as the site says (``centre`` under ``release``).
release_rules = Table(
    "release_rules",
    metadata,
    Column("role", String(64), ForeignKey(roles.c.name), primary_key=True),
    Column("offered", JSON),
    Column("default_policy", String(32)),
    Column("most_seconds", BigInteger),
    Column("idle_seconds", BigInteger),
    Column("idle_percent", Integer),
)

presence = Table(
    "presence",
    metadata,
    Column("user", String(255), primary_key=True),
    Column("platform_seen_at", UTCDateTime()),
    Column("signed_out_at", UTCDateTime()),
)

#: A cluster of a project that is to be there from ``ready_at`` to ``release_at`` (minutes of the day) on
#: ``weekdays`` (0 = Monday) in ``zone``.
schedules = Table(
    "schedules",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("user", String(255), nullable=False),
    Column("project_id", String(26), nullable=False),
    Column("request", JSON, nullable=False),
    Column("weekdays", JSON, nullable=False),
    Column("ready_minute", Integer, nullable=False),
    Column("release_minute", Integer),
    Column("zone", String(64), nullable=False),
    Column("first_day", String(10), nullable=False, server_default=""),
    Column("last_day", String(10), nullable=False, server_default=""),
    Column("holidays", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", UTCDateTime(), nullable=False),
    Column("done_day", String(10), nullable=False, server_default=""),
    Column("run_id", String(26), nullable=False, server_default=""),
    Column("problem", JSON),
    Index(None, "user"),
)
