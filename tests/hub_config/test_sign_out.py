"""Signing out at the hub is noted and told; signing in again counts; others' links release nothing."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from services.release import store
from services.release.tables import presence
from tests.hub_config.conftest import Site, SiteFactory, fill
from tests.metering.rows import add_run

pytestmark = pytest.mark.hub
PASSWORD = "winter is coming"


def person_row(site: Site, user: str = "eva") -> Any:
    with site.app.wiring.database.read() as conn:
        return conn.execute(select(presence).where(presence.c.user == user)).one_or_none()


async def test_whoever_signs_out_is_told_what_goes_back_and_signing_in_counts_as_being_there(
    site_of: SiteFactory,
) -> None:
    site = await site_of()
    async with site.browser() as browser:
        await fill(browser, "/hub/signup", username="eva", signup_password=PASSWORD)
        assert person_row(site).platform_seen_at is not None
        with site.app.wiring.database.write() as conn:
            add_run(conn, "R1", user="eva", server="heat", project_name="Heat <flow>")
            add_run(conn, "R2", user="eva", server="long", project_name="Long", release_policy="2h")
            add_run(conn, "R3", user="bo", server="other", project_name="Not eva's")
        page = await browser.get("/hub/logout", headers={"Sec-Fetch-Site": "same-origin"})
        assert page.status_code == 200
        assert "Heat &lt;flow&gt;" in page.text and "goes back now" in page.text
        assert "Goes back 2 hours after you leave" in page.text and "Not eva" not in page.text
        row = person_row(site)
        assert row.signed_out_at > row.platform_seen_at
        # Signed out already: nothing is told or noted any more.
        again = await browser.get("/hub/logout", headers={"Sec-Fetch-Site": "none"})
        assert "Heat" not in again.text and person_row(site) == row
        await fill(browser, "/hub/login", username="eva", password=PASSWORD)
        assert person_row(site).platform_seen_at > row.signed_out_at


async def test_a_link_on_somebody_elses_site_releases_nothing(site_of: SiteFactory) -> None:
    site = await site_of()
    async with site.browser() as browser:
        await fill(browser, "/hub/signup", username="eva", signup_password=PASSWORD)
        await browser.get("/hub/logout", headers={"Sec-Fetch-Site": "cross-site"})
        assert person_row(site).signed_out_at is None


async def test_where_nobody_says_who_asked_it_signs_out_and_releases_nothing(site_of: SiteFactory) -> None:
    """Browsers say it over https and on the machine itself only."""
    site = await site_of()
    async with site.browser() as browser:
        await fill(browser, "/hub/signup", username="eva", signup_password=PASSWORD)
        assert (await browser.get("/hub/logout")).status_code == 200
        assert (await browser.get("/hub/token")).status_code == 302
        assert person_row(site).signed_out_at is None


async def test_a_page_on_another_host_of_the_site_releases_nothing_and_signs_nobody_out_unseen(
    site_of: SiteFactory,
) -> None:
    """With subdomains people's own programs answer on hosts of the same site, and the browser sends the sign-in along."""
    site = await site_of()
    async with site.browser() as browser:
        await fill(browser, "/hub/signup", username="eva", signup_password=PASSWORD)
        for kind in ("empty", "image", "iframe", "script"):
            for where in ("same-site", "cross-site"):
                headers = {"Sec-Fetch-Site": where, "Sec-Fetch-Dest": kind}
                assert (await browser.get("/hub/logout", headers=headers)).status_code == 403, headers
        assert (await browser.get("/hub/token")).status_code == 200, "she is signed in still"
        # What she sees happen: a page that is opened, as after the form of the portal on its own host.
        opened = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "document"}
        assert (await browser.get("/hub/logout", headers=opened)).status_code == 200
        assert (await browser.get("/hub/token")).status_code == 302
        assert person_row(site).signed_out_at is None, "the portal notes its own"


@pytest.mark.parametrize("where", [{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "document"}, {}])
async def test_who_holds_something_and_comes_from_jupyterlab_is_asked_by_the_portal_first(
    site_of: SiteFactory, where: dict[str, str]
) -> None:
    """JupyterLab's *Log Out* on a host of the person's own, and every way out where browsers say nothing."""
    site = await site_of()
    async with site.browser() as browser:
        await fill(browser, "/hub/signup", username="eva", signup_password=PASSWORD)
        database = site.app.wiring.database
        with database.write() as conn:
            add_run(conn, "R1", user="eva", server="heat", project_name="Heat")
        asked = await browser.get("/hub/logout", headers=where)
        assert asked.status_code == 302
        assert asked.headers["Location"].endswith("/services/portal/sign-out")
        assert (await browser.get("/hub/token")).status_code == 200, "she is signed in still"
        assert person_row(site).signed_out_at is None
        with database.write() as conn:  # the portal notes it, and leads back
            store.signed_out(conn, "eva", site.app.wiring.clock())
        left = person_row(site)
        page = await browser.get("/hub/logout", headers=where)
        assert page.status_code == 200 and "Heat" in page.text
        assert (await browser.get("/hub/token")).status_code == 302
        assert person_row(site) == left


async def test_a_database_that_is_away_keeps_nobody_signed_in(
    site_of: SiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await site_of()
    async with site.browser() as browser:
        await fill(browser, "/hub/signup", username="eva", signup_password=PASSWORD)

        async def away(*args: Any, **kwargs: Any) -> None:
            raise OSError("away")

        monkeypatch.setattr(site.app.wiring.database, "run", away)
        page = await browser.get("/hub/logout", headers={"Sec-Fetch-Site": "none"})
        assert page.status_code == 200
        assert (await browser.get("/hub/token")).status_code == 302
