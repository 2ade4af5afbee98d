"""A PDF in a real browser: its pages are drawn, its text can be read, and nothing in it runs or leaves.

The files are written here, object by object, so that they hold what no writer would make: scripts at opening, forms that
send, links, and a page of HTML that only calls itself a PDF.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from services.catalog import lifecycle
from services.catalog.shares import Actor
from services.portal import pdf_view
from tests.browser.conftest import chromium  # noqa: F401 - a fixture
from tests.portal.live import LiveSite
from tests.portal.test_hostile_browser import ELSEWHERE, Heard, heard, html, page, song  # noqa: F401 - fixtures
from tests.portal.test_pages import directory

pytestmark = pytest.mark.browser


def pdf(objects: list[bytes], root: int = 1) -> bytes:
    """A file of these objects, numbered from 1."""
    text, places = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(text))
        text += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return (
        text
        + b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<</Size %d/Root %d 0 R>>\nstartxref\n%d\n%%%%EOF\n"
        % (
            len(objects) + 1,
            table,
            len(objects) + 1,
            root,
            len(text),
        )
    )


def stream(content: bytes, more: bytes = b"") -> bytes:
    packed = zlib.compress(content)
    return b"<</Filter/FlateDecode/Length %d%s>>\nstream\n%s\nendstream" % (len(packed), more, packed)


def two_pages(script: str = "") -> bytes:
    """Two pages with text in a standard font and in a Chinese one that is not in the file."""
    js = script.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)").encode()
    action = b"<</S/JavaScript/JS(%s)>>" % js
    link = f"<</Type/Annot/Subtype/Link/Rect[0 0 300 400]/A<</S/URI/URI({ELSEWHERE}pdf)>>>>".encode()
    leave = f"<</Type/Annot/Subtype/Widget/FT/Btn/T(b)/Rect[0 0 300 400]/AA<</PO<</S/SubmitForm/F({ELSEWHERE}form)>>>>>>".encode()
    body = "欢迎".encode("utf-16-be").hex().encode()
    one = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 400]/Resources<</Font<</F 5 0 R/C 7 0 R>>>>/Contents 6 0 R/Annots[%s %s]/AA<</O %s>>>>"
    return pdf(
        [
            b"<</Type/Catalog/Pages 2 0 R/OpenAction %s/Names<</JavaScript<</Names[(a) %s]>>>>/AcroForm<</Fields[]>>>>"
            % (action, action),
            b"<</Type/Pages/Kids[3 0 R 4 0 R]/Count 2>>",
            one % (link, leave, action),
            one % (link, leave, action),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            stream(b"BT /F 24 Tf 40 300 Td (Heat flow) Tj /C 24 Tf 0 -40 Td <%s> Tj ET" % body),
            b"<</Type/Font/Subtype/Type0/BaseFont/STSong-Light/Encoding/UniGB-UCS2-H/DescendantFonts[8 0 R]>>",
            b"<</Type/Font/Subtype/CIDFontType0/BaseFont/STSong-Light/CIDSystemInfo<</Registry(Adobe)/Ordering(GB1)"
            b"/Supplement 5>>/FontDescriptor 9 0 R>>",
            b"<</Type/FontDescriptor/FontName/STSong-Light/Flags 6/FontBBox[-25 -254 1000 880]/ItalicAngle 0/Ascent 880"
            b"/Descent -120/CapHeight 880/StemV 93>>",
        ]
    )


FILES = {
    "work.pdf": two_pages(song("pdf")),
    "page.pdf": f"<!doctype html><title>%PDF-1.4</title>{html('polyglot')}".encode(),
    "broken.pdf": b"%PDF-1.4\nnothing of it is true\n",
    "none.pdf": b"just text",
}


@pytest.fixture
def shown(page: Page, site: LiveSite) -> Page:  # noqa: F811
    """Bob at alice's public project with these files."""
    project = site.project("alice", "Heat flow")
    root: Path = directory(site, project.id)
    root.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (root / name).write_bytes(content)
    site.write(lifecycle.publish, "project", project.id, actor=Actor(name="alice"), now=site.portal.clock())
    page.goto(site.url + "projects/alice/heat-flow")
    return page


def open_file(page: Page, name: str) -> None:  # noqa: F811
    page.locator(f'.tree-item[data-name="{name}"] .tree-row').click()
    expect(page.locator("[data-shown-name]")).to_have_text(name)


def test_the_pages_of_a_pdf_are_drawn_and_can_be_read(shown: Page, heard: Heard) -> None:  # noqa: F811
    open_file(shown, "work.pdf")
    frame = shown.locator("iframe.shown-frame").content_frame
    expect(frame.locator("[data-where]")).to_have_text("Page 1 of 2")
    expect(frame.locator(".page")).to_have_count(2)
    expect(frame.locator(".text-layer").first).to_contain_text("Heat flow")
    expect(frame.locator(".text-layer").first).to_contain_text("欢迎")
    dark = frame.locator(".page canvas").first.evaluate(
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data"
        ".reduce((dark, value, index) => dark + (index % 4 === 0 && value < 64 ? 1 : 0), 0)"
    )
    assert dark > 200, "there is ink"
    width = frame.locator(".page").first.bounding_box()
    frame.get_by_role("button", name="Smaller").click()
    smaller = frame.locator(".page").first.bounding_box()
    assert width is not None
    assert smaller is not None
    assert smaller["width"] < width["width"]
    frame.get_by_role("button", name="Next page").click()
    expect(frame.locator("[data-where]")).to_have_text("Page 2 of 2")
    shown.wait_for_timeout(300)
    assert heard.said == []


def test_nothing_in_a_pdf_or_in_what_calls_itself_one_runs_or_leaves(
    shown: Page,
    heard: Heard,  # noqa: F811
    site: LiveSite,
) -> None:
    title = shown.title()
    for name, said in (
        ("page.pdf", "cannot be shown"),
        ("broken.pdf", "cannot be shown"),
        ("none.pdf", "just text"),
    ):
        open_file(shown, name)
        expect(shown.locator("iframe.shown-frame").content_frame.locator("body")).to_contain_text(said)
        shown.wait_for_timeout(200)
    open_file(shown, "work.pdf")
    expect(shown.locator("iframe.shown-frame").content_frame.locator(".page")).to_have_count(2)
    frame = next(one for one in shown.frames if "/preview/" in one.url)
    assert frame.evaluate("origin") == "null"
    assert (
        frame.evaluate("fetch('/services/portal/api/v1/projects').then(() => 'open', () => 'shut')") == "shut"
    )
    assert frame.evaluate(f"fetch('{ELSEWHERE}').then(() => 'open', () => 'shut')") == "shut"
    alone = shown.context.new_page()
    alone.goto(f"{site.url}api/v1/projects/alice/heat-flow/preview/work.pdf")
    assert alone.evaluate("origin") == "null"
    assert heard.said == []
    assert shown.title() == title


def test_the_page_around_hands_in_the_one_file_and_named_parts_only(shown: Page, site: LiveSite) -> None:
    asked: list[str] = []
    open_file(shown, "work.pdf")
    expect(shown.locator("iframe.shown-frame").content_frame.locator(".page")).to_have_count(2)
    shown.on("request", lambda request: asked.append(request.url))
    frame = next(one for one in shown.frames if "/preview/" in one.url)
    answers = frame.evaluate(
        """() => Promise.all([["cmaps", "../../js/page.js"], ["fonts", "a.html"], ["wasm", "../x.wasm"], ["files", "x"],
          ["__proto__", "x"], ["constructor", "x.bcmap"]].map(([want, name], index) => new Promise((resolve) => {
            const id = `test-${index}`;
            addEventListener("message", (event) => { if (event.data.id === id) resolve("bytes" in event.data); });
            parent.postMessage({ galilean: "pdf", id, want, name }, "*");
          })))"""
    )
    assert answers == [False] * 6
    assert not [url for url in asked if url.endswith(("page.js", "a.html", "x.wasm", "x", "x.bcmap"))]


def test_what_calls_itself_a_pdf_must_begin_as_one(tmp_path: Path) -> None:
    from services.files.root import Root

    files = Root(tmp_path)
    for name, content in (
        ("a.pdf", b"\n%PDF-1.4"),
        ("b.pdf", b"x" * 2000 + b"%PDF-1.4"),
        ("c.txt", b"%PDF-1.4"),
    ):
        files.write(name, content)
    assert [pdf_view.is_pdf(files, name) for name in ("a.pdf", "b.pdf", "c.txt")] == [True, False, False]
    with (tmp_path / "a.pdf").open("r+b") as large:
        large.truncate(pdf_view.MOST_BYTES + 1)
    assert not pdf_view.is_pdf(files, "a.pdf")
