"""The real hubs of the spawner's tests, for this room's tests on the real thing."""

from tests.spawner.conftest import hub, hub_of, world  # noqa: F401
