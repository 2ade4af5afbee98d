"""Tables of machines (design §1, CG-33). Times are UTC; a CPU is a hardware thread.

``machines`` is what was seen last, rewritten at every look; a machine that is no more has no row.
``machine_orders`` is what administrators wanted: never deleted, so that it stays readable who took which
machine out, when and why.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from galilean.db import UTCDateTime, metadata

machines = Table(
    "machines",
    metadata,
    Column("name", String(253), primary_key=True),
    Column("ready", Boolean, nullable=False),
    Column("problem", Text, nullable=False, server_default=""),
    Column("cordoned", Boolean, nullable=False),
    Column("control_plane", Boolean, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("taints", JSON, nullable=False),
    # Of the whole machine, and what of it can be given to nodes.
    Column("cpu_millicores", BigInteger, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("gpu", JSON, nullable=False),
    Column("cpu_capacity_millicores", BigInteger, nullable=False),
    Column("memory_capacity_bytes", BigInteger, nullable=False),
    # What else we may see on it: the platform's own parts.
    Column("other_cpu_millicores", BigInteger, nullable=False, server_default="0"),
    Column("other_memory_bytes", BigInteger, nullable=False, server_default="0"),
    Column("other_pods", Integer, nullable=False, server_default="0"),
    Column("address", String(255), nullable=False, server_default=""),
    Column("version", String(64), nullable=False, server_default=""),
    Column("heartbeat_at", UTCDateTime()),
    Column("joined_at", UTCDateTime()),
    Column("seen_at", UTCDateTime(), nullable=False),
)

machine_orders = Table(
    "machine_orders",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("machine", String(253), nullable=False),
    # add, cordon, uncordon, out, compute, keep
    Column("action", String(16), nullable=False),
    Column("pool", String(64), nullable=False, server_default=""),
    Column("remove", Boolean, nullable=False),
    Column("why", Text, nullable=False, server_default=""),
    Column("asked_by", String(255), nullable=False),
    Column("asked_at", UTCDateTime(), nullable=False),
    Column("due_at", UTCDateTime(), nullable=False),
    Column("drained_at", UTCDateTime()),
    Column("withdrawn_at", UTCDateTime()),
    Column("withdrawn_by", String(255), nullable=False, server_default=""),
    Column("closed_at", UTCDateTime()),
    # done, withdrawn, expired, gone
    Column("outcome", String(16), nullable=False, server_default=""),
    Column("problem", Text, nullable=False, server_default=""),
    Index(
        "uq_machine_orders_open",
        "machine",
        unique=True,
        sqlite_where=text("closed_at IS NULL"),
        postgresql_where=text("closed_at IS NULL"),
    ),
    Index(None, "machine", "asked_at"),
)

machine_notices = Table(
    "machine_notices",
    metadata,
    Column("order_id", String(26), ForeignKey(machine_orders.c.id), primary_key=True),
    Column("run_id", String(26), primary_key=True),
    Column("user", String(255), nullable=False),
    Column("told_at", UTCDateTime(), nullable=False),
    Column("mailed", Boolean, nullable=False),
)
