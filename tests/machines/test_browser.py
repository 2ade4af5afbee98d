"""The page Machines in a real browser: live, reachable, readable, at every width."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from services.machines.contents import Condition, Contents, Details, Others, Pod
from tests.browser.conftest import PATIENCE_MS, chromium, overflow, serious_faults  # noqa: F401 - a fixture
from tests.machines.conftest import MakePark, Park
from tests.machines.machines import RESERVED, machine

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Page]


@pytest.fixture
def furnished(make_park: MakePark) -> Park:
    """Forty machines in two pools, one silent, one that leaves, one full, one expected."""
    park = make_park(
        machine(
            "front-01", control_plane=True, taints=(RESERVED,), cpu=8, memory=32, address="192.0.2.10",
            version="v1.33.13",
        ),
        *(
            machine(f"rack1-{number:02}", cpu=32, memory=128, address=f"192.0.2.{20 + number}")
            for number in range(1, 9)
        ),
        machine("rack1-09.physics.example.edu", cpu=64, memory=512, ready=False, problem="silent"),
        *(
            machine(
                f"gpu-{number:02}", cpu=64, memory=512, gpu=4, labels={"pool": "gpu", "card": "a100"},
                version="v1.33.13",
            )
            for number in range(1, 4)
        ),
    )  # fmt: skip
    park.run("alice", "rack1-01", "rack1-02", name="Tidal heating of Io, with a name that is long")
    park.run("bob", "rack1-01", name="热传导模拟", cpu_millicores=28_000)
    park.run("alice", "gpu-01", name="LLM fine-tune", pool="gpu", gpu=4, cpu_millicores=16_000)
    return park


@pytest.fixture
def open_page(chromium: Browser, furnished: Park) -> Iterator[OpenPage]:  # noqa: F811
    """``open_page(name, path, width=, theme=, language=)``: a signed-in page whose faults fail the test."""
    faults: list[str] = []
    contexts: list[Any] = []

    def opener(
        name: str, path: str, *, width: int = 1400, theme: Any = "light", language: str = "en-GB"
    ) -> Page:
        furnished.site.hub.whoever = name
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            locale=language,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: faults.append(f"{path}: {error}"))
        page.goto(furnished.site.url + path)
        return page

    yield opener
    for context in contexts:
        context.close()
    assert not faults, faults


@pytest.mark.parametrize(
    ("theme", "width", "language"),
    [("light", 1400, "en-GB"), ("dark", 1400, "zh-CN"), ("light", 360, "en-GB")],
)
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_window(
    furnished: Park, open_page: OpenPage, theme: str, width: int, language: str
) -> None:
    with furnished.site.portal.db.write() as conn:
        from datetime import timedelta

        from services.machines import store
        from tests.web.site import now

        store.place_order(
            conn, machine="rack1-01", action="out", asked_by="maria", now=now(), why="new memory",
            due_at=now() + timedelta(hours=20), remove=True,
        )  # fmt: skip
    furnished.rounds(2)
    found = []
    for name, path, press in (
        ("maria", "admin/machines", ""),
        ("maria", "admin/machines", "button[hx-get*='machine-add']"),
        ("maria", "admin/machines/rack1-01", ""),
        ("maria", "admin/machines/rack1-02", "button[hx-get$='/out']"),
        ("maria", "admin/machines/gpu-01", ""),
        ("alice", "", ""),
    ):
        page = open_page(name, path, theme=theme, width=width, language=language)
        if press:
            page.locator(press).first.click()
            expect(page.locator("dialog[open]")).to_be_visible()
        page.wait_for_timeout(150)
        shown = f"{path or 'home'} of {name} {press}"
        found += [f"{shown}: {fault}" for fault in serious_faults(page)]
        if overflow(page):
            found.append(f"{shown}: {overflow(page)} px too wide")
        page.context.close()
    assert not found, "\n".join(found)


def test_a_machine_is_taken_out_and_kept_and_the_table_follows_by_itself(
    furnished: Park, open_page: OpenPage
) -> None:
    page = open_page("maria", "admin/machines")
    row = page.locator("tr", has=page.get_by_role("link", name="rack1-01", exact=True))
    expect(row).to_contain_text("Ready")
    row.get_by_role("button", name="Take out").click()
    dialog = page.locator("dialog[open]")
    expect(dialog).to_contain_text("2 clusters go back as a whole")
    dialog.get_by_label("What should they be told?").fill("new memory")
    dialog.get_by_role("button", name="Take out", exact=True).click()
    expect(dialog).to_have_count(0)
    expect(page.locator("#toasts")).to_contain_text("Its people are told the date")
    furnished.rounds(2)
    expect(row).to_contain_text("Leaves")
    with page.expect_response(lambda answer: answer.request.method != "GET"):
        row.get_by_role("button", name="Keep it").click()
    furnished.rounds(3)
    expect(row).to_contain_text("Ready")


def test_a_button_counts_though_its_table_is_refreshed_meanwhile(
    furnished: Park, open_page: OpenPage
) -> None:
    page = open_page("maria", "admin/machines")
    refresh = "document.body.dispatchEvent(new CustomEvent('galilean:machines', {detail: {}}))"
    table = re.compile(r"/admin/machines(\?.*)?$")
    button = page.locator("button[hx-get$='rack1-01/out']")
    dialog = page.locator("dialog[open]")

    # Refreshed between the press and its end: the table waits for the click, then shows what is new.
    mark = "b => b.closest('tr').dataset.old = 'yes'"
    button.evaluate(mark)
    button.hover()
    page.mouse.down()
    with page.expect_response(table):
        page.evaluate(refresh)
    page.wait_for_timeout(200)
    page.mouse.up()
    expect(dialog).to_contain_text("2 clusters go back as a whole")
    expect(page.locator("tr[data-old]")).to_have_count(0)
    dialog.get_by_role("button", name="Leave it").click()
    expect(dialog).to_have_count(0)

    # Refreshed while its dialog is on the way: the dialog comes.
    on_the_way: list[Route] = []
    page.route("**/rack1-01/out*", lambda route: on_the_way.append(route))
    button.evaluate(mark)
    button.click()
    with page.expect_response(table):
        page.evaluate(refresh)
    expect(page.locator("tr[data-old]")).to_have_count(0)
    on_the_way[0].continue_()
    expect(dialog).to_contain_text("2 clusters go back as a whole")


def test_a_name_gives_one_command_that_is_gone_when_the_dialog_closes(
    furnished: Park, open_page: OpenPage
) -> None:
    page = open_page("maria", "admin/machines")
    page.get_by_role("button", name="Add a machine").click()
    page.get_by_label("Name", exact=True).fill("rack2-01")
    page.get_by_label("Pool").select_option("gpu")
    page.get_by_role("button", name="Make the command").click()
    expect(page.locator("#join-command")).to_have_text("join rack2-01")
    page.get_by_role("button", name="I have it").click()
    expect(page.locator("#join-command")).to_have_count(0)
    expect(page.locator("tr", has_text="rack2-01")).to_contain_text("Expected")


def test_the_pool_is_chosen_in_the_form_and_goes_with_the_request(
    furnished: Park, open_page: OpenPage
) -> None:
    furnished.site.project("alice", "Heat flow")
    page = open_page("alice", "projects/alice/heat-flow?run=1")
    pools = page.get_by_role("radiogroup", name="Pool")
    expect(pools).to_contain_text("GPU machines")
    expect(pools).to_contain_text("free: 176\u00a0cores")
    pools.get_by_text("GPU machines").click()
    with page.expect_request("**/clusters") as asked:
        page.get_by_role("button", name="Start").click()
    sent = asked.value.post_data_json
    assert sent is not None
    assert sent["pool"] == "gpu"


def test_pods_of_a_machine_are_searched_as_one_types_and_fit_a_narrow_page(
    furnished: Park, open_page: OpenPage
) -> None:
    pods = [
        Pod(
            namespace="galilean",
            name=f"alice-tidal-heating---0123456789abcdef-{number}",
            what="node",
            user="alice",
            server="tidal-heating",
            rank=number,
            phase="Running",
            ready=True,
            cpu_millicores=2000,
            memory_bytes=8 << 30,
            address=f"10.1.2.{number}",
        )
        for number in range(60)
    ]
    pods.append(
        Pod(namespace="galilean", name="galilean-hub-6d9f7c", what="part", part="hub", phase="Pending")
    )
    condition = Condition(type="Ready", status="True", message="kubelet is posting ready status")
    details = Details(system="Debian GNU/Linux 12", kernel="6.1.0", conditions=(condition,))
    furnished.air.found = Contents(details=details, pods=tuple(pods), others=Others(namespaces=4, pods=17))
    page = open_page("maria", "admin/machines/rack1-01", width=360, theme="dark")
    expect(page.get_by_text("besides 17 pods in 4 other namespaces")).to_be_visible()
    assert overflow(page) == 0
    assert not serious_faults(page)
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("abcdef-59")).to_be_visible()
    page.get_by_role("searchbox", name="Pod, person or state").fill("hub pending")
    expect(page.get_by_text("galilean-hub-6d9f7c")).to_be_visible()
    expect(page.get_by_text("0123456789abcdef")).to_have_count(0)
