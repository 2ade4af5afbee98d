"""Workbenches: what a row of projects is, and one of them for each person and environment

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_LIVING = sa.text("kind = 'workbench' AND deleted_at IS NULL")


def upgrade() -> None:
    op.add_column("projects", sa.Column("kind", sa.String(16), nullable=False, server_default="project"))
    op.create_index(
        "uq_projects_workbench",
        "projects",
        ["owner", "environment"],
        unique=True,
        sqlite_where=_LIVING,
        postgresql_where=_LIVING,
    )


def downgrade() -> None:
    op.drop_index("uq_projects_workbench", "projects")
    op.drop_column("projects", "kind")
