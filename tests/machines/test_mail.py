"""Letters about machines reach people at the addresses that they gave at sign-up, and nobody else learns those."""

from __future__ import annotations

import asyncio
import email
from email import policy

import pytest

from galilean.db import Database
from galilean.errors import UserError
from galilean.settings import Settings
from services.machines import store
from services.machines.notify import MailPost, letters
from tests.hub_config.conftest import SiteFactory, fill, site_of  # noqa: F401 - a fixture
from tests.hub_config.test_sign_up import Post
from tests.machines.machines import T0, machine, run_on

pytestmark = pytest.mark.hub


async def test_who_gave_an_address_gets_a_letter(site_of: SiteFactory, sqlite_db: Database) -> None:  # noqa: F811
    site = await site_of()
    async with site.browser() as browser:
        await fill(
            browser,
            "/hub/signup",
            username="eva",
            signup_password="winter is coming",
            email="eva@example.edu",
        )
    async with site.browser() as browser:
        await fill(browser, "/hub/signup", username="bo", signup_password="winter is coming")
    post = Post()
    server = await asyncio.start_server(post, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Settings.model_validate({"mail": {"host": "127.0.0.1", "port": port}})
    for number, person in enumerate(("eva", "bo", "li@example.edu")):
        run_on(sqlite_db, f"R{number}", "m1", user=person, project_name="Heat")
    with sqlite_db.write() as conn:
        store.sync(conn, [machine("m1")], T0)
        order = store.place_order(conn, machine="m1", action="out", asked_by="root", now=T0, why="new disks")
        found = store.holdings(conn, "m1")
    hub = site.api(site.secrets.tokens["machines"])
    reached = await MailPost(settings, hub)(letters(order, found))
    assert sorted(reached) == ["eva", "li@example.edu"]
    server.close()
    messages = [email.message_from_string(text, policy=policy.default) for text in post.messages]
    assert sorted(str(message["To"]) for message in messages) == ["eva@example.edu", "li@example.edu"]
    assert "m1 is taken out on 2026-03-02 09:00 (UTC)" in str(messages[0]["Subject"])
    text = messages[0].get_content()
    assert "new disks" in text
    assert "管理员说明" in text


async def test_only_the_machines_service_learns_addresses(site_of: SiteFactory) -> None:  # noqa: F811
    site = await site_of()
    admin = await site.person("boss", "admin")
    for hub in (admin, site.command, site.api(site.secrets.tokens["portal"])):
        with pytest.raises(UserError) as refused:
            await hub.request("POST", "/galilean/addresses", json={"names": ["boss"]})
        assert refused.value.status == 403
    machines = site.api(site.secrets.tokens["machines"])
    for wrong in ({}, {"names": "boss"}, {"names": ["x"] * 1001}):
        with pytest.raises(UserError) as refused:
            await machines.request("POST", "/galilean/addresses", json=wrong)
        assert refused.value.status == 400
    answer = await machines.request("POST", "/galilean/addresses", json={"names": ["boss", "nobody"]})
    assert answer.json() == {}
