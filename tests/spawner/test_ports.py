"""The ports of a run: declared, added and taken away, on both databases (AP-11)."""

from __future__ import annotations

import pytest

from galilean.db import Database
from galilean.errors import UserError
from spawner import ports, records, steps
from spawner.request import ClusterRequest
from tests.spawner.backends import plan_of
from tests.spawner.test_records import NOW, reserve


def shown(db: Database, run_id: str) -> tuple[int, ...]:
    with db.read() as conn:
        run = records.get(conn, run_id)
    assert run is not None
    return ports.ports_of(run)


def test_ports_of_the_projects_own_defaults_are_doors_too(db: Database) -> None:
    assert shown(db, reserve(db, ports=(8050, 5006))) == (5006, 8050)
    with db.serialised("admission") as conn:
        asked = steps.reserve(
            conn,
            run_id="0" * 26,
            plan=plan_of("bob", ports=(9000,)),
            request=ClusterRequest(ports=(9000,)),
            backend="memory",
            asked_by="bob",
            now=NOW,
        )
    assert ports.ports_of(asked) == (9000,)


def test_ports_come_and_go_and_the_attempt_stays(db: Database) -> None:
    run_id = reserve(db, ports=(8050,))
    with db.write() as conn:
        assert ports.change_ports(conn, run_id, add=9000)
        assert ports.change_ports(conn, run_id, drop=8050)
        assert ports.change_ports(conn, run_id, drop=1234), "what is not shown is taken away already"
    assert shown(db, run_id) == (9000,)
    with db.write() as conn:
        run = records.get(conn, run_id)
        assert run is not None and run.attempt == 1
        with pytest.raises(UserError) as caught:
            for port in range(3000, 3040):
                ports.change_ports(conn, run_id, add=port)
        assert caught.value.status == 409
        assert not ports.change_ports(conn, "nobody", add=9000)


@pytest.mark.parametrize("port", [0, -5, 1023, 65536, 8888, 2222])
def test_what_is_no_port_of_a_program_is_refused(port: int) -> None:
    with pytest.raises(UserError) as caught:
        ports.check_port(port)
    assert caught.value.status == 400 and "{" not in caught.value.text()
