"""The audit log is append-only in the database itself: a trigger refuses changes and removals (SC-17).

Made by the migration and by ``metadata.create_all`` alike. Whoever owns the database can take the trigger
away; nobody who merely got hold of the product's connection changes a line without that being visible.
"""

from __future__ import annotations

from sqlalchemy import DDL, event

from galilean.tables import audit_log

REFUSAL = "lines of the audit log are never changed"


def statements(dialect: str) -> list[str]:
    """What makes the table append-only."""
    if dialect == "postgresql":
        return [
            "CREATE OR REPLACE FUNCTION galilean_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
            "CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log "
            "FOR EACH STATEMENT EXECUTE FUNCTION galilean_append_only()",
        ]
    return [
        f"CREATE TRIGGER audit_log_no_{verb.lower()} BEFORE {verb} ON audit_log "
        f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        for verb in ("UPDATE", "DELETE")
    ]


def removal(dialect: str) -> list[str]:
    """What undoes :func:`statements`."""
    if dialect == "postgresql":
        return [
            "DROP TRIGGER audit_log_append_only ON audit_log",
            "DROP FUNCTION galilean_append_only()",
        ]
    return [f"DROP TRIGGER audit_log_no_{verb}" for verb in ("update", "delete")]


for _dialect in ("sqlite", "postgresql"):
    for _statement in statements(_dialect):
        event.listen(
            audit_log, "after_create", DDL(_statement.replace("%", "%%")).execute_if(dialect=_dialect)
        )
