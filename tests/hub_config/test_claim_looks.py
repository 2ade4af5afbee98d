"""Who may have claims looked at on machines: portal and commands alone, by names, and only where machines are Kubernetes'."""

from __future__ import annotations

import pytest

from galilean.errors import UserError
from tests.hub_config.conftest import SiteFactory

pytestmark = pytest.mark.hub

GOOD = {"claim": "campus", "volume": "campus", "machines": ["m1"]}


async def test_only_portal_and_commands_have_claims_looked_at(site_of: SiteFactory) -> None:
    site = await site_of()
    admin = await site.person("boss", "admin")
    for hub in (admin, site.api(site.secrets.tokens["machines"])):
        with pytest.raises(UserError) as refused:
            await hub.request("POST", "/galilean/look", json=GOOD)
        assert refused.value.status == 403
    portal = site.api(site.secrets.tokens["portal"])
    for wrong in ([], {**GOOD, "claim": 1}, {**GOOD, "machines": "m1"}, {**GOOD, "machines": ["m"] * 1001}):
        with pytest.raises(UserError) as refused:
            await portal.request("POST", "/galilean/look", json=wrong)
        assert refused.value.status == 400
    for hub in (portal, site.command):
        with pytest.raises(UserError, match="on Kubernetes only"):
            await hub.request("POST", "/galilean/look", json=GOOD)
