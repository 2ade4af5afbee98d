"""Tables of metering: what finished runs used, by day, and what nodes really used, by run and day.

``usage_daily`` holds **finished** runs only: one that is over, every node of it with an end, which is never
rewritten. Its row in ``clusters`` then says ``rolled_up``, in the same transaction. So nothing in here has to
be corrected later because a node ended later than thought, and what is not in here is what few rows of
``clusters`` say ``rolled_up`` is false.

Units, and why nothing leaves 64 bits: times are whole microseconds, and what nodes have stands in the *key*
(``usage_keys``), not in the sums, so that no product is kept. A sum of node time overflows after 100 million
nodes were held for a whole day, that of ten years of everybody with 29 000 nodes held all the time; products
(core minutes) are made at the very end, by numbers without a bound. Real use is processor time (microseconds),
card time, and memory in KiB seconds.

``block`` says a span of days: ``level * BLOCK + first day``, the day as :meth:`datetime.date.toordinal`; level
0 is one day, the next ones 4, 16, 64, 256 and 4096 days, aligned. Any window is read out of a dozen blocks.
Each run is added twice: under its whole key, and, in blocks of their own (``WIDE +``), under the *wide* key
without person and project (both empty), for what administrators ask of everybody.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import DDL, BigInteger, Column, ForeignKey, Index, Integer, String, Table, event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from galilean.db import metadata
from spawner.tables import clusters

BLOCK = 10_000_000
WIDE = 10 * BLOCK

usage_keys = Table(
    "usage_keys",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("user", String(255), nullable=False),
    Column("project_id", String(26), nullable=False),
    Column("environment", String(128), nullable=False),
    Column("pool", String(64), nullable=False),
    Column("role", String(64), nullable=False),
    Column("account", String(128), nullable=False),
    Column("cpu_millicores", BigInteger, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("gpu", Integer, nullable=False),
    Column("gpu_model", String(64), nullable=False),
    Index(
        "uq_usage_keys",
        "user",
        "project_id",
        "environment",
        "pool",
        "role",
        "account",
        "cpu_millicores",
        "memory_bytes",
        "gpu",
        "gpu_model",
        unique=True,
    ),
    Index(None, "project_id"),
)

#: ``first_us`` is the earliest start of a node in it, in microseconds since 1970.
usage_daily = Table(
    "usage_daily",
    metadata,
    Column("block", Integer, primary_key=True, autoincrement=False),
    Column("key_id", Integer, ForeignKey(usage_keys.c.id), primary_key=True, autoincrement=False),
    Column("first_us", BigInteger, nullable=False),
    Column("wall_us", BigInteger, nullable=False),
    Column("node_us", BigInteger, nullable=False),
    Column("measured_us", BigInteger, nullable=False),
    Column("cpu_used_us", BigInteger, nullable=False),
    Column("memory_kib_s", BigInteger, nullable=False),
    Column("gpu_used_us", BigInteger, nullable=False),
    Column("idle_us", BigInteger, nullable=False),
    Column("gpu_idle_us", BigInteger, nullable=False),
    Index(None, "key_id", "block"),
    sqlite_with_rowid=False,
)

#: PostgreSQL's own sum of such numbers goes by way of decimal ones, for no number is too large for it: three quarters
#: of a report's time there. This one stays within 64 bits, as all that is kept here does, and fails beyond.
SUM = DDL(
    "CREATE OR REPLACE AGGREGATE usage_sum(bigint) "
    "(SFUNC = int8pl, STYPE = bigint, INITCOND = '0', COMBINEFUNC = int8pl, PARALLEL = SAFE)"
).execute_if(dialect="postgresql")
event.listen(usage_daily, "before_create", SUM)


class usage_sum(FunctionElement[int]):
    """The sum of whole numbers of which there is at least one, within 64 bits."""

    name = "usage_sum"
    type = BigInteger()
    inherit_cache = True


@compiles(usage_sum)
def _plain_sum(element: usage_sum, compiler: Any, **more: Any) -> str:
    return f"sum({compiler.process(element.clauses, **more)})"


@compiles(usage_sum, "postgresql")
def _own_sum(element: usage_sum, compiler: Any, **more: Any) -> str:
    return f"usage_sum({compiler.process(element.clauses, **more)})"


#: What a project was called when it last ran.
usage_projects = Table(
    "usage_projects",
    metadata,
    Column("project_id", String(26), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("slug", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("run_id", String(26), nullable=False),
)

#: Real use of a run on a day of the site (ordinal), added to at each sample; never deleted.
run_use = Table(
    "run_use",
    metadata,
    Column("cluster_id", String(26), ForeignKey(clusters.c.id), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("measured_us", BigInteger, nullable=False),
    Column("cpu_used_us", BigInteger, nullable=False),
    Column("memory_kib_s", BigInteger, nullable=False),
    Column("gpu_used_us", BigInteger, nullable=False),
    Column("idle_us", BigInteger, nullable=False),
    Column("gpu_idle_us", BigInteger, nullable=False),
)
