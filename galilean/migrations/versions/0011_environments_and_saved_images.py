"""Environments and saved images

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import galilean.db

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "environments",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("title", sa.String(length=80), nullable=False),
        sa.Column("description", sa.String(length=500), server_default="", nullable=False),
        sa.Column("documentation", sa.Text(), server_default="", nullable=False),
        sa.Column("field", sa.String(length=64), server_default="", nullable=False),
        sa.Column("logo", sa.String(length=64), server_default="", nullable=False),
        sa.Column("start", sa.JSON(), nullable=False),
        sa.Column("gpu", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("interfaces", sa.String(length=64), server_default=" jupyter ", nullable=False),
        sa.Column("visibility", sa.String(length=16), server_default="own", nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column("sort_name", sa.String(length=80), nullable=False),
        sa.Column("created_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("changed_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("retired_at", galilean.db.UTCDateTime(), nullable=True),
        sa.Column("retired_by", sa.String(length=255), server_default="", nullable=False),
        sa.Column("deleted_at", galilean.db.UTCDateTime(), nullable=True),
        sa.CheckConstraint(
            "visibility IN ('own', 'group', 'public')", name=op.f("ck_environments_visibility")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environments")),
    )
    with op.batch_alter_table("environments", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_environments_owner"), ["owner"], unique=False)
        batch_op.create_index(
            "uq_environments_open",
            ["name"],
            unique=True,
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        )

    op.create_table(
        "registry_keys",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("registry", sa.String(length=255), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("made_by", sa.String(length=255), nullable=False),
        sa.Column("deleted_at", galilean.db.UTCDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry_keys")),
    )
    with op.batch_alter_table("registry_keys", schema=None) as batch_op:
        batch_op.create_index(
            "uq_registry_keys_open",
            ["owner", "registry"],
            unique=True,
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        )

    op.create_table(
        "saved_images",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("tag", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=500), server_default="", nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("step", sa.String(length=32), server_default="", nullable=False),
        sa.Column("done_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("cancel_asked_at", galilean.db.UTCDateTime(), nullable=True),
        sa.Column("image", sa.String(length=512), server_default="", nullable=False),
        sa.Column("digest", sa.String(length=136), server_default="", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("layers", sa.Integer(), nullable=True),
        sa.Column("platform", sa.String(length=64), server_default="", nullable=False),
        sa.Column("parent", sa.String(length=512), server_default="", nullable=False),
        sa.Column("environment", sa.String(length=128), server_default="", nullable=False),
        sa.Column("run_id", sa.String(length=26), server_default="", nullable=False),
        sa.Column("rank", sa.Integer(), server_default="0", nullable=False),
        sa.Column("changes", sa.JSON(), nullable=True),
        sa.Column("dockerfile", sa.Text(), server_default="", nullable=False),
        sa.Column("log", sa.Text(), server_default="", nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("why_params", sa.JSON(), nullable=True),
        sa.Column("began_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("ended_at", galilean.db.UTCDateTime(), nullable=True),
        sa.Column("environment_id", sa.String(length=26), server_default="", nullable=False),
        sa.Column("deleted_at", galilean.db.UTCDateTime(), nullable=True),
        sa.CheckConstraint(
            "state IN ('saving', 'ready', 'failed', 'cancelled')", name=op.f("ck_saved_images_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_saved_images")),
    )
    with op.batch_alter_table("saved_images", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_saved_images_state"), ["state"], unique=False)
        batch_op.create_index(
            "uq_saved_images_open",
            ["owner", "name", "tag"],
            unique=True,
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        )

    op.create_table(
        "environment_shares",
        sa.Column("environment_id", sa.String(length=26), nullable=False),
        sa.Column("grantee_kind", sa.String(length=16), nullable=False),
        sa.Column("grantee", sa.String(length=255), nullable=False),
        sa.Column("given_by", sa.String(length=255), nullable=False),
        sa.Column("given_at", galilean.db.UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_environment_shares_environment_id_environments"),
        ),
        sa.PrimaryKeyConstraint(
            "environment_id", "grantee_kind", "grantee", name=op.f("pk_environment_shares")
        ),
    )
    with op.batch_alter_table("environment_shares", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_environment_shares_grantee_grantee_kind"),
            ["grantee", "grantee_kind"],
            unique=False,
        )

    op.create_table(
        "environment_versions",
        sa.Column("environment_id", sa.String(length=26), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(length=128), nullable=False),
        sa.Column("image", sa.String(length=512), nullable=False),
        sa.Column("digest", sa.String(length=136), nullable=False),
        sa.Column("source", sa.String(length=512), server_default="", nullable=False),
        sa.Column("key_id", sa.String(length=26), server_default="", nullable=False),
        sa.Column("saved_image_id", sa.String(length=26), server_default="", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("layers", sa.Integer(), nullable=True),
        sa.Column("platform", sa.String(length=64), server_default="", nullable=False),
        sa.Column("told", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("note", sa.String(length=500), server_default="", nullable=False),
        sa.Column("added_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("added_by", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_environment_versions_environment_id_environments"),
        ),
        sa.PrimaryKeyConstraint("environment_id", "number", name=op.f("pk_environment_versions")),
    )
    with op.batch_alter_table("environment_versions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_environment_versions_digest"), ["digest"], unique=False)

    with op.batch_alter_table("clusters", schema=None) as batch_op:
        batch_op.create_index("ix_clusters_environment", ["environment", "queued_at"], unique=False)
