"""Tables of virtual clusters (design §4). Times are UTC, amounts are per node.

``cluster_nodes`` are the usage intervals: never deleted, never rewritten once ``gone_at`` is set. A node
that comes back is a new attempt. Names are kept *as they were*, so that machine time stays readable after
a project is deleted (CG-24). ``account`` and ``pool`` are here from the first migration on.
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
    false,
    text,
)

from galilean.db import UTCDateTime, metadata

clusters = Table(
    "clusters",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("user", String(255), nullable=False),
    Column("server", String(64), nullable=False),
    Column("project_id", String(26), nullable=False),
    Column("project_owner", String(255), nullable=False),
    Column("project_slug", String(64), nullable=False),
    Column("project_name", String(255), nullable=False),
    Column("environment", String(128), nullable=False),
    Column("environment_digest", String(128), nullable=False, server_default=""),
    Column("account", String(128)),
    Column("pool", String(64), nullable=False, server_default="default"),
    Column("backend", String(32), nullable=False),
    Column("nodes", Integer, nullable=False),
    Column("cpu_millicores", BigInteger, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("gpu", Integer, nullable=False, server_default="0"),
    Column("gpu_model", String(64), nullable=False, server_default=""),
    Column("storage_bytes", BigInteger, nullable=False, server_default="0"),
    Column("on_node_loss", String(16), nullable=False, server_default="release"),
    Column("release_policy", String(32), nullable=False),
    Column("request", JSON, nullable=False),
    # How the project's files are mounted in its nodes, which nothing changes while they run. Null = not known.
    Column("work_read_only", Boolean),
    # The data sets that its nodes have: id, address, version, directory, whether they may write. Null = not known.
    Column("datasets", JSON),
    Column("status", String(16), nullable=False),
    Column("target", String(16), nullable=False, server_default="running"),
    Column("reason", String(64), nullable=False, server_default=""),
    Column("explanation", JSON),
    Column("asked_by", String(255), nullable=False),
    Column("queued_at", UTCDateTime(), nullable=False),
    Column("reserved_at", UTCDateTime()),
    Column("placed_at", UTCDateTime()),
    Column("ready_at", UTCDateTime()),
    Column("proxy_seen_at", UTCDateTime()),
    Column("node_seen_at", UTCDateTime()),
    Column("stop_asked_at", UTCDateTime()),
    Column("stop_asked_by", String(255), nullable=False, server_default=""),
    Column("released_at", UTCDateTime()),
    Column("warned_at", UTCDateTime()),
    Column("extended_until", UTCDateTime()),
    # Frozen at admission; see services.release.terms.
    Column("release_terms", JSON),
    # As last decided: when it goes back by itself, and why then. Null = not by itself.
    Column("release_at", UTCDateTime()),
    Column("release_why", String(32), nullable=False, server_default=""),
    # The role by which the person got it, for reports.
    Column("role", String(64), nullable=False, server_default=""),
    # Whether it is over and stands in ``usage_daily``; metering's.
    Column("rolled_up", Boolean, nullable=False, server_default=false()),
    Column("state", JSON),
    Column("note", Text, nullable=False, server_default=""),
    Index(
        "uq_clusters_open",
        "user",
        "server",
        unique=True,
        sqlite_where=text("released_at IS NULL"),
        postgresql_where=text("released_at IS NULL"),
    ),
    Index(
        "ix_clusters_open_status",
        "status",
        sqlite_where=text("released_at IS NULL"),
        postgresql_where=text("released_at IS NULL"),
    ),
    Index(
        "ix_clusters_not_rolled_up",
        "user",
        sqlite_where=text("NOT rolled_up"),
        postgresql_where=text("NOT rolled_up"),
    ),
    Index(None, "user", "queued_at"),
    Index(None, "project_id", "queued_at"),
    Index(None, "queued_at"),
    # Lists of runs are in the order of their ids, a page at a time.
    Index(None, "user", "id"),
    Index(None, "project_id", "id"),
    # A held cluster's row is written all the time (presence, its end): with room for its next version in the same
    # page, PostgreSQL need not touch the ten indexes.
    postgresql_with={"fillfactor": 70},
)

cluster_nodes = Table(
    "cluster_nodes",
    metadata,
    Column("cluster_id", String(26), ForeignKey(clusters.c.id), primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True, server_default="1"),
    Column("name", String(128), nullable=False),
    Column("host", String(255), nullable=False, server_default=""),
    Column("url", String(512), nullable=False, server_default=""),
    Column("placed_at", UTCDateTime()),
    Column("ready_at", UTCDateTime()),
    Column("gone_at", UTCDateTime()),
    Column("sighted_at", UTCDateTime()),
    Column("exit_reason", String(128), nullable=False, server_default=""),
    # Of an attempt that somebody asked for while the run went on (spawner.renewal): when, how and who.
    Column("asked_at", UTCDateTime()),
    Column("asked_as", String(16), nullable=False, server_default=""),
    Column("asked_by", String(255), nullable=False, server_default=""),
    # Why it did not come back, or why it was left as it is: message and parameters.
    Column("explanation", JSON),
    Index(None, "ready_at"),
    Index(
        "ix_cluster_nodes_asked",
        "cluster_id",
        sqlite_where=text("asked_at IS NOT NULL AND ready_at IS NULL AND gone_at IS NULL"),
        postgresql_where=text("asked_at IS NOT NULL AND ready_at IS NULL AND gone_at IS NULL"),
    ),
    Index(
        "ix_cluster_nodes_open",
        "cluster_id",
        sqlite_where=text("gone_at IS NULL"),
        postgresql_where=text("gone_at IS NULL"),
    ),
)

#: What the nodes of a run really use, as last measured and summed up since they were ready. ``cpu_used_us`` is
#: processor time; ``memory_kib_s`` memory times time; ``gpu_used_us`` card time times utilisation. ``idle_us``
#: is time in which the whole node was idle, ``gpu_idle_us`` card time at utilisation 0. ``busy`` is the node's
#: own word (kernels, terminals, commands), ``busy_at`` when it last said that something runs.
node_use = Table(
    "node_use",
    metadata,
    Column("cluster_id", String(26), ForeignKey(clusters.c.id), primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True, server_default="1"),
    Column("measured_at", UTCDateTime()),
    Column("cpu_permille", Integer, nullable=False, server_default="0"),
    Column("memory_bytes", BigInteger, nullable=False, server_default="0"),
    Column("gpu_permille", Integer),
    Column("gpu_memory_bytes", BigInteger),
    Column("cpu_used_us", BigInteger, nullable=False, server_default="0"),
    Column("memory_kib_s", BigInteger, nullable=False, server_default="0"),
    Column("gpu_used_us", BigInteger, nullable=False, server_default="0"),
    Column("idle_us", BigInteger, nullable=False, server_default="0"),
    Column("gpu_idle_us", BigInteger, nullable=False, server_default="0"),
    Column("counter_us", BigInteger, nullable=False, server_default="0"),
    Column("used_at", UTCDateTime()),
    Column("busy", JSON),
    Column("busy_at", UTCDateTime()),
    Column("told_at", UTCDateTime()),
)
