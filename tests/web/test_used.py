"""What a cluster has used so far stands where it is held, and goes on by itself (BX-4)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from services.portal.held import used_of
from spawner import records
from spawner.tables import cluster_nodes
from tests.web.conftest import Visitor
from tests.web.site import Site


def test_it_is_the_core_hours_and_gpu_hours_of_all_nodes_those_that_are_gone_too(site: Site) -> None:
    began = datetime.now(UTC) - timedelta(hours=2)
    run_id = site.cluster("alice", nodes=2, cpu_millicores=4000, gpu=1, ready_at=began)
    with site.portal.db.write() as conn:
        conn.execute(
            cluster_nodes.update()
            .where(cluster_nodes.c.cluster_id == run_id, cluster_nodes.c.rank == 1)
            .values(gone_at=began + timedelta(minutes=30))
        )
    with site.portal.db.read() as conn:
        run = records.get(conn, run_id)
        nodes = records.intervals(conn, [run_id])[run_id]
    assert run is not None
    used = used_of(run, nodes, began + timedelta(hours=2))
    assert (used.core_hours, used.gpu_hours) == pytest.approx((4 * 2.5, 2.5))
    assert (used.core_hours_per_second * 3600, used.gpu_hours_per_second * 3600) == pytest.approx((4, 1))
    assert (used + used).core_hours == pytest.approx(20)


def test_the_meter_tells_it_and_how_it_grows(site: Site, alice: Visitor) -> None:
    site.cluster("alice", cpu_millicores=2000, held=timedelta(minutes=30))
    meter = alice.get("meter").text
    found = re.search(r'data-amount="([0-9.]+)" data-per-second="([0-9.]+)" data-at="[0-9.]+">1\.00<', meter)
    assert found, meter
    assert float(found[2]) * 3600 == pytest.approx(2)
    assert "GPU h" not in meter, "nothing is said of what it has not"
