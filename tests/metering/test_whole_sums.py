"""The sum that reports of machine time use: exact to the last of 64 bits, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from galilean.db import Database
from services.metering.tables import usage_daily, usage_keys, usage_sum

ZERO = dict.fromkeys(
    (
        "first_us",
        "node_us",
        "measured_us",
        "cpu_used_us",
        "memory_kib_s",
        "gpu_used_us",
        "idle_us",
        "gpu_idle_us",
    ),
    0,
)
KEY = {
    "id": 1, "user": "lena", "project_id": "P", "environment": "e", "pool": "p", "role": "r", "account": "",
    "cpu_millicores": 1, "memory_bytes": 1, "gpu": 0, "gpu_model": "",
}  # fmt: skip


def add(db: Database, *values: int) -> None:
    with db.write() as conn:
        conn.execute(insert(usage_keys).values(KEY))
        conn.execute(
            insert(usage_daily),
            [{"block": n, "key_id": 1, "wall_us": value, **ZERO} for n, value in enumerate(values)],
        )


def test_it_is_exact_where_decimals_and_floats_would_not_be(db: Database) -> None:
    add(db, 2**62, 2**62 - 1, -1, 1)
    with db.read() as conn:
        found = conn.execute(
            select(usage_sum(usage_daily.c.wall_us), func.count()).select_from(usage_daily)
        ).one()
    assert tuple(found) == (2**63 - 1, 4)
    assert type(found[0]) is int


def test_what_leaves_64_bits_is_an_error_and_no_other_number(db: Database) -> None:
    add(db, 2**62, 2**62)
    with db.read() as conn, pytest.raises(SQLAlchemyError):
        conn.execute(select(usage_sum(usage_daily.c.wall_us))).one()
