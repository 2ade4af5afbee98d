"""The top bar of an administrator who holds much, from a telephone to a wide screen: nothing cut, nothing on top."""

from __future__ import annotations

from itertools import pairwise

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage, overflow, serious_faults
from tests.web.site import Site

pytestmark = pytest.mark.browser

WIDTHS = (
    1920,
    1700,
    1600,
    1541,
    1500,
    1420,
    1401,
    1400,
    1366,
    1280,
    1241,
    1240,
    1121,
    1120,
    1024,
    768,
    600,
    360,
)
#: Of the bar's parts that are seen: where they begin and end.
PARTS = """() => [...document.querySelectorAll(
    '.topbar > .brand, .topbar > nav > *, .topbar .tools > *')]
    .map((part) => part.getBoundingClientRect()).filter((box) => box.width)
    .map((box) => [Math.floor(box.left), Math.ceil(box.right)])"""


def held(site: Site, who: str = "maria") -> None:
    for name in ("Heat flow", "Galaxies"):
        site.cluster(who, name, release_policy="2h")
    site.cluster(who, "Wind", status="starting")


def parts_follow(page: Page) -> bool:
    found = page.evaluate(PARTS)
    return all(left[1] <= right[0] + 1 for left, right in pairwise(found))


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_who_administers_nothing_has_room_for_the_whole_search(
    site: Site, open_page: OpenPage, language: str
) -> None:
    held(site, "alice")
    page = open_page("alice", language=language)
    search, cut = page.locator(".topbar .search.wide input"), []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        if overflow(page) or not parts_follow(page):
            cut.append(f"{width}: {page.evaluate(PARTS)}")
        elif width > 1200 and (search.bounding_box() or {"width": 0})["width"] < 136:
            cut.append(f"{width}: the search is {search.bounding_box()}")
    assert not cut


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_at_no_width_a_part_is_cut_or_covers_another(site: Site, open_page: OpenPage, language: str) -> None:
    held(site)
    page = open_page("maria", language=language)
    search, cut = page.locator(".topbar .search.wide input"), []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        if overflow(page) or not parts_follow(page):
            cut.append(f"{width}: {page.evaluate(PARTS)}")
        elif search.is_visible() and 40 < (search.bounding_box() or {"width": 0})["width"] < 136:
            cut.append(f"{width}: the search is {search.bounding_box()}")
    assert not cut


def test_a_lens_opens_over_its_neighbours_and_goes_back(site: Site, open_page: OpenPage) -> None:
    held(site)
    site.project("maria", "Wind tunnel")
    page = open_page("maria", width=1280)
    field = page.locator(".topbar .search.wide input")
    assert (field.bounding_box() or {})["width"] <= 40
    page.keyboard.press("/")
    page.keyboard.type("wind")
    assert (field.bounding_box() or {})["width"] >= 300
    expect(
        page.get_by_role("option", name="Wind tunnel").or_(page.locator("#find-panel a")).first
    ).to_be_visible()
    assert not serious_faults(page)
    page.locator("#find-panel a").first.click()
    expect(page).to_have_url(site.url + "projects/maria/wind-tunnel")
    assert (page.locator(".topbar .search.wide input").bounding_box() or {})["width"] <= 40


@pytest.mark.parametrize("width", [1400, 1024, 360])
def test_what_gave_way_is_in_the_menu(open_page: OpenPage, width: int) -> None:
    page = open_page("maria", width=width)
    page.locator(".account > summary").click()
    menu = page.locator(".account .panel")
    expect(menu.get_by_role("button", name="Light or dark")).to_be_visible()
    expect(menu.get_by_role("searchbox")).to_be_visible(visible=width <= 1120)
    menu.get_by_role("button", name="中文").click()
    expect(page.locator("h1")).to_contain_text("欢迎")
