"""Alembic's environment: one connection, handed in by :mod:`galilean.migrate`."""

from __future__ import annotations

from alembic import context

from galilean.db import metadata


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or name in metadata.tables


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
    include_name=_ours,
    user_module_prefix="galilean.db.",
)
with context.begin_transaction():
    context.run_migrations()
