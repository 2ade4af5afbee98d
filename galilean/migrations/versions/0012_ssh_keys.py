"""People's public keys for ssh

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import galilean.db

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ssh_keys",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("fingerprint", sa.String(length=80), nullable=False),
        sa.Column("public", sa.Text(), nullable=False),
        sa.Column("added_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("used_at", galilean.db.UTCDateTime()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ssh_keys")),
        sa.UniqueConstraint("user", "fingerprint", name=op.f("uq_ssh_keys_user_fingerprint")),
    )


def downgrade() -> None:
    op.drop_table("ssh_keys")
