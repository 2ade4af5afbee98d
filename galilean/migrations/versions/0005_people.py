"""People

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import galilean.db
from galilean import append_only

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "groups",
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("created_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=255), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_groups")),
    )
    op.create_table(
        "imports",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.Column("file", sa.String(length=255), server_default="", nullable=False),
        sa.Column("rows", sa.JSON(), nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("finished_at", galilean.db.UTCDateTime(), nullable=True),
        sa.Column("undone_at", galilean.db.UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
    )
    op.create_table(
        "people",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("full_name", sa.String(length=255), server_default="", nullable=False),
        sa.Column("mail", sa.String(length=255), server_default="", nullable=False),
        sa.Column("created_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=255), server_default="", nullable=False),
        sa.Column("import_id", sa.String(length=26), nullable=True),
        sa.Column("blocked_at", galilean.db.UTCDateTime(), nullable=True),
        sa.Column("blocked_by", sa.String(length=255), server_default="", nullable=False),
        sa.Column("blocked_reason", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_people")),
    )
    with op.batch_alter_table("people", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_people_import_id"), ["import_id"], unique=False)
    for statement in append_only.statements(op.get_bind().dialect.name):
        op.execute(statement)


def downgrade() -> None:
    for statement in append_only.removal(op.get_bind().dialect.name):
        op.execute(statement)
    with op.batch_alter_table("people", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_people_import_id"))
    op.drop_table("people")
    op.drop_table("imports")
    op.drop_table("groups")
