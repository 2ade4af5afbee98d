"""Alembic's scripts; ``python scripts/new_migration.py "what changed"`` writes the next one."""
