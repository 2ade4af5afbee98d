"""What roles and single persons may hold (CG-28, CG-29, BX-10).

A limit is of a *measure*: a resource, and where it is narrower a pool, a GPU model or a period (empty =
not narrowed). ``amount`` is in the unit of the resource (:mod:`extensions.quota.measures`); null = no limit.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, Text, text

from galilean.db import UTCDateTime, metadata
from galilean.tables import roles

quotas = Table(
    "quotas",
    metadata,
    Column("role", String(64), ForeignKey(roles.c.name), primary_key=True),
    Column("resource", String(32), primary_key=True),
    Column("pool", String(64), primary_key=True, server_default=""),
    Column("gpu_model", String(64), primary_key=True, server_default=""),
    Column("period", String(16), primary_key=True, server_default=""),
    Column("amount", BigInteger),
)

#: Exceptions are ended, never deleted: who held more than their role, why and for how long stays known.
quota_exceptions = Table(
    "quota_exceptions",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("user", String(255), nullable=False),
    Column("resource", String(32), nullable=False),
    Column("pool", String(64), nullable=False, server_default=""),
    Column("gpu_model", String(64), nullable=False, server_default=""),
    Column("period", String(16), nullable=False, server_default=""),
    Column("amount", BigInteger),
    Column("reason", Text, nullable=False, server_default=""),
    Column("given_by", String(255), nullable=False),
    Column("given_at", UTCDateTime(), nullable=False),
    Column("expires_at", UTCDateTime()),
    Column("ended_at", UTCDateTime()),
    Column("ended_by", String(255), nullable=False, server_default=""),
    Index(
        "uq_quota_exceptions_open",
        "user",
        "resource",
        "pool",
        "gpu_model",
        "period",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)
