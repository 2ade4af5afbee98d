"""Tables of object stores. ``sealed`` is the key, encrypted; a store that is deleted is no row any more.

``object_transfers`` is what was copied: a copy lives in a process, and a row that says ``working`` and was not
``seen_at`` for minutes was broken off. ``upload`` is a multipart upload that is open at the store, so that what a killed process left there can be
taken away.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table

from galilean.db import UTCDateTime, metadata

object_stores = Table(
    "object_stores",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("name", String(80), nullable=False),
    Column("endpoint", String(300), nullable=False),
    Column("bucket", String(63), nullable=False),
    Column("prefix", String(512), nullable=False),
    Column("region", String(64), nullable=False),
    Column("addressing", String(8), nullable=False),
    Column("writable", Boolean, nullable=False),
    Column("access_key_id", String(255), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("made_at", UTCDateTime(), nullable=False),
    Column("made_by", String(255), nullable=False),
    Column("changed_at", UTCDateTime(), nullable=False),
    Index("uq_object_stores_owner_name", "owner", "name", unique=True),
)

object_transfers = Table(
    "object_transfers",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("by", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("item_id", String(26), nullable=False),
    Column("store_id", String(26), nullable=False),
    Column("store_name", String(80), nullable=False),
    Column("asked", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("process", String(64), nullable=False),
    Column("job_id", String(32), nullable=False),
    Column("objects", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("problem", JSON(none_as_null=True)),
    Column("upload", JSON(none_as_null=True)),
    Column("began_at", UTCDateTime(), nullable=False),
    Column("seen_at", UTCDateTime(), nullable=False),
    Column("ended_at", UTCDateTime()),
    Index(None, "item_id", "by"),
    Index(None, "state"),
)
