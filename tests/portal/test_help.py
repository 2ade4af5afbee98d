"""The documentation inside the product: every page, every link, and a place for every page's help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from galilean import glossary
from galilean.i18n import LANGUAGES
from services.portal.admin import ENTRIES
from services.portal.library import PARTS, TOPICS, WORDS, Library, anchor, library, topic_of
from tests.portal.conftest import Sign
from tests.portal.live import LiveSite

PREFIX = "/services/portal/help/"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_is_shown_and_every_link_leads_somewhere(language: str) -> None:
    shelf = library()
    names = shelf.names()
    assert {name.partition("/")[0] for name in names} == set(PARTS)
    for name in names:
        page = shelf.page(name, language, PREFIX)
        assert page is not None, name
        assert "{doc}" not in page.body, name
        assert "```" not in page.body, name
        for target in re.findall(r'(?:href|src)="([^"#]+)', page.body):
            if target.startswith(PREFIX + "pictures/"):
                assert shelf.picture(target.removeprefix(PREFIX + "pictures/")), (name, target)
            elif not target.startswith(("http", "mailto:")):
                assert shelf.source(target.removeprefix(PREFIX), language), (name, target)


@pytest.mark.parametrize("topic", sorted(set(TOPICS.values())))
def test_each_pages_help_is_there(topic: str) -> None:
    assert library().source(topic, "en") is not None


def test_every_page_of_the_administration_has_its_place() -> None:
    known = {place for place in TOPICS if place.startswith("admin")}
    assert {entry.place for entry in ENTRIES} <= known | {"admin"}


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("", "tutorial/first-cluster"),
        ("projects/ada/heat-flow", "topics/projects-and-files"),
        ("admin/quotas/exceptions", "how-to/set-quotas"),
        ("nobody/knows", "tutorial/first-cluster"),
    ],
)
def test_help_opens_where_it_fits(path: str, page: str) -> None:
    assert topic_of(path) == page


def test_chinese_where_it_is_written_and_english_said_where_not() -> None:
    shelf = library()
    first, other = (
        shelf.page("tutorial/first-cluster", "zh_CN", PREFIX),
        shelf.page("topics/quotas", "zh_CN", PREFIX),
    )
    assert first is not None
    assert other is not None
    assert (first.title, first.translated) == ("第一个集群", True)
    assert not other.translated


def test_names_that_lead_out_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "tutorial").mkdir()
    (tmp_path / "secret.md").write_text("# secret")
    shelf = Library(tmp_path)
    for name in (
        "../secret",
        "tutorial/../../secret",
        "secret",
        "/etc/passwd",
        "zh_CN/secret",
        "tutorial/a/b",
    ):
        assert shelf.source(name, "en") is None
    assert shelf.picture("../secret.md") is None


def test_a_page_is_text_whatever_stands_in_it(tmp_path: Path) -> None:
    (tmp_path / "topics").mkdir()
    (tmp_path / "topics" / "x.md").write_text("# A & b\n\n<script>alert(1)</script> {doc}`no such <gone>`\n")
    page = Library(tmp_path).page("topics/x", "en", PREFIX)
    assert page is not None
    assert "<script" not in page.body
    assert "no such" in page.body


def test_headings_have_addresses() -> None:
    assert anchor("Run it on two nodes") == "run-it-on-two-nodes"
    page = library().page("tutorial/first-cluster", "en", PREFIX)
    assert page is not None
    assert 'id="run-it-on-two-nodes"' in page.body


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_is_said_and_leads_to_a_page(language: str) -> None:
    for key, word in glossary.words(language).items():
        assert word.word, key
        assert word.text, key
        assert library().source(word.page, "en") is not None, key
        assert word.text in glossary.page(language)
        assert 'role="tooltip"' in glossary.term(key, word.word, language)


def test_pages_open_it_and_explain_their_words(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    home = alice.get(site.url + "projects").text
    assert f'href="{PREFIX}topics/projects-and-files"' in home
    assert "Your first cluster" in alice.get(site.url + "help").text
    words = alice.get(site.url + f"help/{WORDS}", headers={"Accept-Language": "zh-CN"}).text
    assert "虚拟集群" in words
    assert alice.get(site.url + "help/topics/nothing").status_code == 404
    picture = alice.get(site.url + "help/pictures/home.png")
    assert picture.headers["Content-Type"] == "image/png"
    assert 'class="term"' in alice.get(site.url + "machine-time").text
