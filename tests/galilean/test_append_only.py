"""Lines of the audit log cannot be changed or removed, whoever has the connection (SC-17)."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import DBAPIError

from galilean import audit
from galilean.clock import utcnow
from galilean.db import Database
from galilean.migrate import upgrade
from galilean.tables import audit_log


@pytest.mark.parametrize("change", [update(audit_log).values(actor="nobody"), delete(audit_log)])
def test_the_database_refuses_to_change_or_remove_lines(database_url: str, change: object) -> None:
    upgrade(database_url)
    database = Database(database_url)
    with database.write() as conn:
        audit.write(conn, at=utcnow(), actor="maria", action="role.create", subject="desk")
    with pytest.raises(DBAPIError, match="never changed"), database.engine.begin() as conn:
        conn.execute(change)  # type: ignore[call-overload]
    with database.read() as conn:
        assert conn.execute(audit_log.select()).one().actor == "maria"
    database.close()
