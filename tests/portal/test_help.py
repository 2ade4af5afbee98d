"""The documentation inside the product: every page, every link, and a place for every page's help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from galilean import glossary
from galilean.errors import UserError
from galilean.i18n import LANGUAGES
from services.portal.admin import ENTRIES
from services.portal.library import PARTS, TOPICS, WORDS, Library, anchor, library, topic_of
from services.portal.pages import status
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
        ("", "tutorial/first-steps"),
        ("projects/ada/heat-flow", "topics/projects-and-files"),
        ("admin/quotas/exceptions", "how-to/set-quotas"),
        ("explore/datasets", "how-to/find-and-fork"),
        ("nobody/knows", "tutorial/first-steps"),
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


#: What people who are no administrators meet.
FOR_PEOPLE = (
    "tutorial/first-steps",
    "tutorial/first-cluster",
    "tutorial/a-class",
    "how-to/find-and-fork",
    "how-to/work-with-files",
    "how-to/use-data-sets",
    "how-to/share-and-publish",
    "how-to/keep-a-cluster",
    "how-to/report-machine-time",
    "how-to/use-the-item-in-jupyterlab",
)
#: What administrators do with what people keep.
FOR_KEEPERS = (
    "how-to/add-a-volume",
    "how-to/manage-all-projects",
    "how-to/move-projects",
    "how-to/write-the-home-page",
)


@pytest.mark.parametrize("name", FOR_PEOPLE + FOR_KEEPERS)
def test_what_people_meet_is_there_in_chinese_with_the_same_headings(name: str) -> None:
    shelf = library()
    english, chinese = shelf.source(name, "en"), shelf.source(name, "zh_CN")
    assert english is not None
    assert chinese is not None
    assert chinese[1], "it is written, not English shown"
    if name != "tutorial/first-cluster":  # ends where people's part of it ends
        levels = [re.findall(r"^#+(?= )", text, re.MULTILINE) for text, _ in (english, chinese)]
        assert levels[0] == levels[1]
    assert re.findall(r"pictures/[a-z-]+", english[0]) == re.findall(r"pictures/[a-z-]+", chinese[0])


def test_the_help_begins_where_its_reader_does(site: LiveSite, sign: Sign) -> None:
    student, admin = sign("bob"), sign("root")
    assert '<h1 id="first-steps">' in student.get(site.url + "help").text
    assert "make up" not in student.get(site.url + "help").text
    assert '<h1 id="install-on-one-machine">' in admin.get(site.url + "help").text
    assert 'id="入门"' in student.get(site.url + "help", headers={"Accept-Language": "zh-CN"}).text


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


def test_a_chinese_line_goes_on_without_a_space(tmp_path: Path) -> None:
    (tmp_path / "zh_CN" / "topics").mkdir(parents=True)
    (tmp_path / "zh_CN" / "topics" / "x.md").write_text("# 题\n\n密码。\n除了您，用 API\n查询\n", "utf-8")
    page = Library(tmp_path).page("topics/x", "zh_CN", PREFIX)
    assert page is not None
    assert "密码。除了您，用 API\n查询" in page.body


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
    assert f'href="{PREFIX[:-1]}"' in home, "the foot leads to all of it"
    words = alice.get(site.url + f"help/{WORDS}", headers={"Accept-Language": "zh-CN"}).text
    assert "虚拟集群" in words
    assert alice.get(site.url + "help/topics/nothing").status_code == 404
    picture = alice.get(site.url + "help/pictures/home.png")
    assert picture.headers["Content-Type"] == "image/png"
    assert 'class="term"' in alice.get(site.url + "machine-time").text


def test_the_status_says_what_works_and_what_does_not(
    site: LiveSite, sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = sign("bob")
    assert "All systems fine" in bob.get(site.url + "status").text

    async def away(*_: object, **__: object) -> None:
        raise UserError(503, "away")

    monkeypatch.setattr(site.portal.hub, "request", away)
    monkeypatch.setattr(status, "HUB_SECONDS", 0.1)
    told = bob.get(site.url + "status").text
    assert "does not work just now" in told
    assert "All systems fine" not in told
