"""The queue service against a real hub and the real admission, with the queue's own scopes."""

from __future__ import annotations

import pytest

from extensions.quota.admission import Fixed
from extensions.quota.limits import Held
from services.queue.starter import Starter
from services.queue.store import position
from spawner.plan import ClusterPlan
from tests.release.test_in_a_hub import api
from tests.spawner.conftest import HubFactory

pytestmark = pytest.mark.hub


class RoomForOne:
    def fits(self, plan: ClusterPlan, taken: Held) -> bool:
        return taken.clusters == 0


async def test_what_waits_starts_in_its_turn_when_something_is_given_back(hub_of: HubFactory) -> None:
    hub = await hub_of(room=RoomForOne())
    assert (await hub.post("first")).status_code == 201
    for server in ("second", "third"):
        answer = await hub.post(server, options={"cpu": 0.5, "memory": "1G"})
        assert (answer.status_code, answer.reason_phrase) == (503, "queued")
    second, third = await hub.run("second"), await hub.run("third")
    starts = api(hub, "queue")
    queue = Starter(hub.db, starts)
    await queue.tick()
    assert (await hub.run("second")).word == "waiting"
    assert await hub.db.run_read(position, third.id) == 2
    await hub.delete("first")
    await queue.tick()
    run = await hub.run("second")
    assert (run.id, run.word, run.queued_at, run.cpu_millicores) == (
        second.id,
        "running",
        second.queued_at,
        500,
    )
    assert (await hub.run("third")).word == "waiting"
    assert await hub.db.run_read(position, third.id) == 1
    await starts.close()


async def test_a_wait_that_the_hub_refuses_for_good_is_closed_and_told(hub_of: HubFactory) -> None:
    hub = await hub_of(room=RoomForOne())
    await hub.post("first")
    await hub.post("second")
    admission = hub.app.users["ada"].spawners["first"].collaborators.admission
    admission._policy = Fixed(None)  # the role was taken away meanwhile
    starts = api(hub, "queue")
    await Starter(hub.db, starts).tick()
    run = await hub.closed("second")
    assert (run.word, run.reason) == ("released", "start_failed")
    assert run.explanation is not None and "role" in str(run.explanation)
    await starts.close()
