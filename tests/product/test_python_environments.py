"""Where nodes are processes: a person installs a package, saves it, adds it to the library, and another imports it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from extensions.desktop import available
from tests.browser.conftest import ARGUMENTS, CHROMIUM, PATIENCE_MS, serious_faults
from tests.imagebuilder.story import signed_in
from tests.product.code import in_node
from tests.product.conftest import SETTINGS
from tests.product.product import Product, running_product, wait_for
from tests.wheels import make_wheel

pytestmark = pytest.mark.browser
PICTURES = os.environ.get("GALILEAN_PICTURES", "")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "tinyheat", "1.0", requires=["tinybase>=1"])
    make_wheel(folder, "tinybase", "1.5")
    return folder


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[Product]:
    """A centre whose packages come from a folder alone."""
    settings = {
        **SETTINGS,
        "process": {**SETTINGS["process"], "find_links": str(wheels)},
        "environments": {"jupyter": {"title": "JupyterLab", "interfaces": ["jupyter", "desktop"]}},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("UV_NO_INDEX", "1")
        with running_product(tmp_path_factory.mktemp("centre"), settings) as running:
            yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def saved_from(page: Page, address: str) -> Page:
    """The page to which *Save image …* in the menu of JupyterLab, or of a desktop, leads."""
    page.goto(address)
    page.locator(".galilean-pill").click()
    with page.expect_popup() as opened:
        page.locator("#galilean-menu").get_by_role("link", name="Save image …").click()
    opened.value.set_default_timeout(PATIENCE_MS)
    return opened.value


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/python-{name}.png", full_page=True)


@pytest.mark.timeout(1500)
def test_what_one_person_saved_another_runs_and_imports(
    chromium: Browser, centre: Product, wheels: Path
) -> None:
    ada, grace = centre.person("ada", "researcher"), centre.person("grace", "researcher")
    heat = ada.running("Heat flow")
    (run,) = ada.clusters()
    told = in_node(ada, heat, "%pip install --no-index tinyheat\nimport sys; print('in', sys.prefix)")
    assert "Successfully installed" in told
    assert "/home/node-0/.python" in told
    assert "1.0" in in_node(ada, heat, "import tinyheat, jupyterlab; print(tinyheat.VERSION)")

    # From the menu of JupyterLab and from that of the desktop to the page, which says plainly what is saved
    # here, what is in it, and how much.
    first = signed_in(chromium, centre, ada)
    node = f"{centre.url}/user/ada/{heat}/"
    page = saved_from(first, f"{node}lab")
    page.wait_for_url(f"**/clusters/{run['id']}/nodes/0/save")
    if available.server(shutil.which):
        other = saved_from(first, f"{node}desktop/")
        other.wait_for_url(page.url)
        expect(other.locator(".lead")).to_contain_text("a Python environment")
        other.close()
    expect(page.locator(".lead")).to_contain_text("a Python environment")
    expect(page.locator(".image-packages")).to_contain_text("tinyheat 1.0")
    expect(page.locator(".image-packages")).to_contain_text("tinybase 1.5")
    page.get_by_label("Name and tag").fill("Heat:1")
    expect(page.locator("#image-name-check")).to_contain_text("lower-case")
    page.get_by_label("Name and tag").fill("heat-tools:1")
    expect(page.locator("#image-name-check")).to_contain_text("heat-tools:1")
    assert serious_faults(page) == []
    picture(page, "save")
    page.get_by_role("button", name="Save image").click()
    page.wait_for_url(re.compile(r"/images/[0-9A-Z]{26}$"))
    add = page.get_by_role("button", name="Add to library")
    add.wait_for()
    expect(page.locator(".image-packages")).to_contain_text("tinyheat 1.0")
    assert serious_faults(page) == []
    picture(page, "saved")
    if PICTURES:
        _all_looks(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Its lock file").click()
    lock = Path(download.value.path()).read_text()
    assert "tinyheat==1.0" in lock
    assert "--hash=sha256:" in lock
    assert str(wheels) not in lock

    # Nobody else has it, then those who were chosen.
    saved = ada.portal("GET", "/images").json()["items"][0]
    assert grace.portal("GET", f"/images/{saved['id']}").status_code == 404
    assert "ada/heat-tools" not in grace.portal("GET", "/environments").text
    add.click()
    dialog = page.locator("#library-dialog")
    dialog.get_by_label("Named people and groups").check()
    dialog.get_by_label("People", exact=True).fill("grace")
    picture(page, "library")
    dialog.get_by_role("button", name="Add to library").click()
    page.wait_for_url(re.compile(r"/environments/[0-9A-Z]{26}$"))
    picture(page, "entry")
    assert "ada/heat-tools" in grace.portal("GET", "/environments").text

    # Another person runs two nodes of it; the machine lost what it had made, and makes it again from the lock file.
    made = centre.state / "pythons"
    for place in made.glob("[0-9a-f]*"):
        os.rename(place, centre.directory / "lost")
    slug = grace.project("Heat again")
    answer = grace.run(slug, project=slug, nodes=2, environment="ada/heat-tools")
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: grace.is_ready(slug), "grace's cluster is ready", seconds=60)
    assert len(list(made.glob("[0-9a-f]*"))) == 1
    for rank in range(2):
        assert "1.0" in in_node(grace, slug, "import tinyheat; print(tinyheat.VERSION)", rank)
    (theirs,) = grace.clusters()
    assert theirs["environment"] == "ada/heat-tools"

    # What grace adds stays grace's, and ada's own Python is not touched.
    make_wheel(wheels, "tinyheat", "2.0")
    in_node(grace, slug, "%pip install --no-index --no-deps tinyheat==2.0")
    assert "2.0" in in_node(grace, slug, "import tinyheat; print(tinyheat.VERSION)")
    assert "1.0" in in_node(grace, slug, "import tinyheat; print(tinyheat.VERSION)", 1)
    assert "1.0" in in_node(ada, heat, "import tinyheat; print(tinyheat.VERSION)")

    # Withdrawn, it takes no new runs; the one that is held goes on.
    page.goto(f"{centre.url}/services/portal/images/{saved['id']}")
    page.get_by_role("button", name="Withdraw").click()
    page.get_by_role("button", name="Add to library").wait_for()
    refused = grace.run("heat-2", project=grace.project("Heat 2"), environment="ada/heat-tools")
    assert refused.status_code in (404, 409, 400), refused.text
    assert "1.0" in in_node(grace, slug, "import tinyheat; print(tinyheat.VERSION)", 1)

    # The list says it all, and gives it back.
    page.goto(f"{centre.url}/services/portal/images")
    expect(page.locator("#images")).to_contain_text("heat-tools:1")
    picture(page, "list")


@pytest.mark.timeout(900)
def test_what_was_installed_in_a_workbench_is_saved(chromium: Browser, centre: Product) -> None:
    mira = centre.person("mira", "researcher")
    page = signed_in(chromium, centre, mira)
    bench = mira.portal("POST", "/workbenches", json={"environment": "jupyter"}).raise_for_status().json()
    page.goto(f"{centre.url}/services/portal/workbenches/{bench['id']}")
    expect(page.get_by_text("by a lock file")).to_be_visible()
    answer = mira.portal("POST", f"/workbenches/{bench['id']}/clusters", json={"cpu": 1, "memory": "1G"})
    assert answer.status_code == 202, answer.text
    wait_for(lambda: mira.is_ready(bench["server"]), "the workbench is ready", seconds=60)
    told = in_node(mira, bench["server"], "%pip install --no-index --no-deps tinybase==1.5")
    assert "Successfully installed" in told
    page.reload()
    picture(page, "workbench")
    page.get_by_role("link", name="Save image").click()
    expect(page.locator(".image-packages")).to_contain_text("tinybase 1.5")
    picture(page, "workbench-save")
    page.get_by_label("Name and tag").fill("bench:1")
    page.get_by_role("button", name="Save image").click()
    page.wait_for_url(re.compile(r"/images/[0-9A-Z]{26}$"))
    page.get_by_role("button", name="Add to library").wait_for()
    (saved,) = mira.portal("GET", "/images").json()["items"]
    assert "tinybase==1.5" in mira.portal("GET", f"/images/{saved['id']}").json()["lock"]
    page.get_by_role("link", name="My images").first.click()
    expect(page.locator("#images")).to_contain_text("bench:1")

    # In the library it has a workbench itself, and what was saved is there.
    added = mira.portal("PUT", f"/images/{saved['id']}/library", json={"title": "Bench"})
    assert added.status_code in (200, 201), added.text
    of_it = mira.portal("POST", "/workbenches", json={"environment": added.json()["id"]})
    assert of_it.status_code == 201, of_it.text
    answer = mira.portal(
        "POST", f"/workbenches/{of_it.json()['id']}/clusters", json={"cpu": 1, "memory": "1G"}
    )
    assert answer.status_code == 202, answer.text
    wait_for(lambda: mira.is_ready(of_it.json()["server"]), "its own workbench is ready", seconds=60)
    assert "1.5" in in_node(mira, of_it.json()["server"], "import tinybase; print(tinybase.VERSION)")


@pytest.mark.timeout(900)
def test_what_only_a_node_has_is_refused_with_its_name(
    chromium: Browser, centre: Product, wheels: Path
) -> None:
    cora = centre.person("cora", "researcher")
    server = cora.running("Own tool")
    (run,) = cora.clusters()
    (wheel,) = wheels.glob("tinybase-1.5-*.whl")
    in_node(cora, server, f"%pip install --no-index {wheel}")
    page = signed_in(chromium, centre, cora)
    page.goto(f"{centre.url}/services/portal/clusters/{run['id']}/nodes/0/save")
    expect(page.get_by_text("Installed from a file or folder of this node: tinybase 1.5")).to_be_visible()
    page.get_by_label("Name and tag").fill("own:1")
    page.get_by_role("button", name="Save image").click()
    page.wait_for_url(re.compile(r"/images/[0-9A-Z]{26}$"))
    expect(page.get_by_text("It could not be saved. Nothing was kept.")).to_be_visible()
    expect(
        page.get_by_text("Installed from a file or folder of this node: tinybase 1.5").first
    ).to_be_visible()
    picture(page, "refused")


def _all_looks(page: Page) -> None:
    browser, state = page.context.browser, page.context.storage_state()
    assert browser is not None
    for name, more in {
        "dark": {"color_scheme": "dark"},
        "narrow": {"viewport": {"width": 360, "height": 780}},
        "chinese": {"locale": "zh-CN"},
    }.items():
        context = browser.new_context(storage_state=state, **more)  # type: ignore[arg-type]
        other = context.new_page()
        other.goto(page.url)
        picture(other, f"saved-{name}")
        context.close()
