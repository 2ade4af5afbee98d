"""Tables of the ground floor: leases, the audit log (SC-17), what the centre decided, notices.

``roles`` and ``centre`` are seeded from ``galilean.yaml`` once and belong to administrators from then on
(:mod:`galilean.centre`); ``notices`` are what people are to be told (:mod:`galilean.notices`).
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, String, Table, Text, text

from galilean.db import UTCDateTime, metadata

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("expires_at", UTCDateTime(), nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", UTCDateTime(), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("address", String(64), nullable=False, server_default=""),
    Column("action", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("before", JSON),
    Column("after", JSON),
    Column("reason", Text, nullable=False, server_default=""),
    Index(None, "at"),
    Index(None, "subject", "at"),
)

#: Roles of people; each is a hub group ``galilean:<name>``. ``rights`` is a list of words (AP-36).
roles = Table(
    "roles",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("title", String(255), nullable=False, server_default=""),
    Column("position", Integer, nullable=False, server_default="0"),
    Column("builtin", Boolean, nullable=False),
    Column("rights", JSON, nullable=False),
    Column("created_at", UTCDateTime(), nullable=False),
)

#: Groups of people, hub groups ``galilean-group:<slug>``; ``roles`` is what each member has besides their own.
#: Who is a member the hub knows.
groups = Table(
    "groups",
    metadata,
    Column("slug", String(64), primary_key=True),
    Column("title", String(255), nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("roles", JSON, nullable=False),
    Column("created_at", UTCDateTime(), nullable=False),
    Column("created_by", String(255), nullable=False, server_default=""),
)

#: Decisions that hold for everybody, each under its key; ``version`` is a key of its own and moves with each
#: change of anything that administrators decide, in whichever table.
centre = Table(
    "centre",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
    Column("changed_at", UTCDateTime(), nullable=False),
    Column("changed_by", String(255), nullable=False, server_default=""),
)

#: What somebody is to be told. ``text`` is a message id, ``params`` its values; ``mail`` = also by mail while
#: no page of theirs is open.
notices = Table(
    "notices",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("user", String(255), nullable=False),
    Column("at", UTCDateTime(), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("cluster_id", String(26), nullable=False, server_default=""),
    Column("text", Text, nullable=False),
    Column("params", JSON, nullable=False),
    Column("address", String(512), nullable=False, server_default=""),
    Column("mail", Boolean, nullable=False),
    Column("mailed_at", UTCDateTime()),
    Column("read_at", UTCDateTime()),
    Index(None, "user", "at"),
    Index(
        "ix_notices_to_mail",
        "at",
        sqlite_where=text("mail AND mailed_at IS NULL"),
        postgresql_where=text("mail AND mailed_at IS NULL"),
    ),
)
