"""Usage by day

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

USE = ("measured_us", "cpu_used_us", "memory_kib_s", "gpu_used_us", "idle_us", "gpu_idle_us")


def _whole(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "usage_keys",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("project_id", sa.String(length=26), nullable=False),
        sa.Column("environment", sa.String(length=128), nullable=False),
        sa.Column("pool", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=128), nullable=False),
        *_whole("cpu_millicores", "memory_bytes"),
        sa.Column("gpu", sa.Integer(), nullable=False),
        sa.Column("gpu_model", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_keys")),
    )
    op.create_index(op.f("ix_usage_keys_project_id"), "usage_keys", ["project_id"])
    op.create_index(
        "uq_usage_keys",
        "usage_keys",
        [
            "user", "project_id", "environment", "pool", "role", "account", "cpu_millicores", "memory_bytes",
            "gpu", "gpu_model",
        ],
        unique=True,
    )  # fmt: skip
    op.create_table(
        "usage_daily",
        sa.Column("block", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key_id", sa.Integer(), autoincrement=False, nullable=False),
        *_whole("first_us", "wall_us", "node_us", *USE),
        sa.ForeignKeyConstraint(["key_id"], ["usage_keys.id"], name=op.f("fk_usage_daily_key_id_usage_keys")),
        sa.PrimaryKeyConstraint("block", "key_id", name=op.f("pk_usage_daily")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_usage_daily_key_id_block"), "usage_daily", ["key_id", "block"])
    op.create_table(
        "usage_projects",
        sa.Column("project_id", sa.String(length=26), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("run_id", sa.String(length=26), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_usage_projects")),
    )
    op.create_table(
        "run_use",
        sa.Column("cluster_id", sa.String(length=26), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        *_whole(*USE),
        sa.ForeignKeyConstraint(["cluster_id"], ["clusters.id"], name=op.f("fk_run_use_cluster_id_clusters")),
        sa.PrimaryKeyConstraint("cluster_id", "day", name=op.f("pk_run_use")),
    )
    with op.batch_alter_table("clusters", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rolled_up", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.create_index(
            "ix_clusters_not_rolled_up",
            ["user"],
            sqlite_where=sa.text("NOT rolled_up"),
            postgresql_where=sa.text("NOT rolled_up"),
        )
        batch_op.create_index(batch_op.f("ix_clusters_user_id"), ["user", "id"])
        batch_op.create_index(batch_op.f("ix_clusters_project_id_id"), ["project_id", "id"])


def downgrade() -> None:
    with op.batch_alter_table("clusters", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_clusters_project_id_id"))
        batch_op.drop_index(batch_op.f("ix_clusters_user_id"))
        batch_op.drop_index(
            "ix_clusters_not_rolled_up",
            sqlite_where=sa.text("NOT rolled_up"),
            postgresql_where=sa.text("NOT rolled_up"),
        )
        batch_op.drop_column("rolled_up")
    op.drop_table("run_use")
    op.drop_table("usage_projects")
    op.drop_index(op.f("ix_usage_daily_key_id_block"), table_name="usage_daily")
    op.drop_table("usage_daily")
    op.drop_index("uq_usage_keys", table_name="usage_keys")
    op.drop_index(op.f("ix_usage_keys_project_id"), table_name="usage_keys")
    op.drop_table("usage_keys")
