"""Object stores, and what is copied from and to them

Revision ID: 0023
Revises: 0022
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import galilean.db

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "object_stores",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("endpoint", sa.String(300), nullable=False),
        sa.Column("bucket", sa.String(63), nullable=False),
        sa.Column("prefix", sa.String(512), nullable=False),
        sa.Column("region", sa.String(64), nullable=False),
        sa.Column("addressing", sa.String(8), nullable=False),
        sa.Column("writable", sa.Boolean(), nullable=False),
        sa.Column("access_key_id", sa.String(255), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("made_by", sa.String(255), nullable=False),
        sa.Column("changed_at", galilean.db.UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_object_stores")),
    )
    op.create_index("uq_object_stores_owner_name", "object_stores", ["owner", "name"], unique=True)
    op.create_table(
        "object_transfers",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("item_id", sa.String(26), nullable=False),
        sa.Column("store_id", sa.String(26), nullable=False),
        sa.Column("store_name", sa.String(80), nullable=False),
        sa.Column("asked", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("process", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("objects", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("problem", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("upload", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("began_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("seen_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("ended_at", galilean.db.UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_object_transfers")),
    )
    op.create_index(op.f("ix_object_transfers_item_id_by"), "object_transfers", ["item_id", "by"])
    op.create_index(op.f("ix_object_transfers_state"), "object_transfers", ["state"])


def downgrade() -> None:
    op.drop_table("object_transfers")
    op.drop_table("object_stores")
