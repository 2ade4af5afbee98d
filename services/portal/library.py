"""The documentation inside the product: Markdown of ``docs/``, rendered when somebody reads it.

The same files are the documentation's web pages by Sphinx, which takes half a minute and packages that nobody needs
to run the product. Their Markdown is plain but for links between pages and a few boxes, so the renderer that shows
people's READMEs is enough here: nothing is built, a page costs milliseconds once, and text and product cannot be of
two versions. What is written for other programs (settings, metrics, the API's table) is left to the web pages.

A page in another language stands under ``docs/<language>/`` at the same place; where there is none, English is
shown and it is said.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from galilean import glossary
from galilean.errors import mark

HERE = Path(__file__).parent
PLACES = (HERE / "docs", HERE.parent.parent / "docs")
#: Parts of the documentation, in the order of the menu.
PARTS = ("tutorial", "how-to", "topics", "reference")
PART_WORDS = {
    "tutorial": mark("First steps"),
    "how-to": mark("How to"),
    "topics": mark("How it works"),
    "reference": mark("To look up"),
}
WORDS = "reference/words"
_NAME = re.compile(r"[a-z0-9-]+/[a-z0-9-]+")
_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f\u201c\u201d]")
_DOC = re.compile(r"\{doc\}`(?:([^`<]+?) *<([^`>]+)>|([^`]+))`")
_MADE = re.compile(r"^```\{galilean-", re.MULTILINE)
_BOX = re.compile(r"^(?:`{3}|:{3})\{?(note|warning|tip)\}?\n(.*?)^(?:`{3}|:{3})$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class HelpPage:
    """A page.

    Attributes
    ----------
    name
        Such as ``how-to/add-people``.
    body
        HTML of ours.
    translated
        Whether it is in the language that was asked for.
    """

    name: str
    title: str
    body: str
    translated: bool = True


class Library:
    """The pages.

    Parameters
    ----------
    root
        Of the documentation; ``None`` = where it is installed.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or next((place for place in PLACES if (place / "tutorial").is_dir()), PLACES[-1])

    def names(self) -> list[str]:
        """All pages, by part."""
        found: list[str] = []
        for part in PARTS:
            for path in sorted((self.root / part).glob("*.md")):
                name = f"{part}/{path.stem}"
                if name == WORDS or not _MADE.search(path.read_text(encoding="utf-8")):
                    found.append(name)
        return found

    def source(self, name: str, language: str) -> tuple[str, bool] | None:
        """Markdown of a page and whether it is in the language; ``None`` when there is none."""
        if not _NAME.fullmatch(name) or name.partition("/")[0] not in PARTS:
            return None
        if name == WORDS:
            return glossary.page(language), True
        for folder, right in ((self.root / language, True), (self.root, language == "en")):
            path = folder / f"{name}.md"
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                return None if _MADE.search(text) else (text, right)
        return None

    def title(self, name: str, language: str) -> str:
        """Its first heading."""
        found = self.source(name, language)
        head = re.match(r"# +(.+)", found[0]) if found else None
        return head[1].replace("`", "") if head else name

    def page(self, name: str, language: str, prefix: str) -> HelpPage | None:
        """A page; ``prefix`` is the address of the help, with a slash at its end."""
        found = self.source(name, language)
        if found is None:
            return None
        text, right = found
        return HelpPage(
            name=name,
            title=self.title(name, language),
            body=self._render(text, name, language, prefix),
            translated=right,
        )

    def _render(self, text: str, name: str, language: str, prefix: str) -> str:
        def doc(match: re.Match[str]) -> str:
            target = match[2] or match[3]
            where = self._target(target, name)
            shown = (match[1] or "").strip()
            if self.source(where, language) is None:
                return shown or where
            return f"[{shown or self.title(where, language)}]({prefix}{where})"

        def box(match: re.Match[str]) -> str:
            return "\n".join(f"> {line}" for line in match[2].splitlines()) + "\n"

        text = _DOC.sub(doc, _BOX.sub(box, text))
        markdown = MarkdownIt("commonmark", {"html": False}).enable(["table"])
        tokens = markdown.parse(text)
        self._anchors(tokens)
        for token in tokens:
            if token.children:
                token.children = self._placed(token.children, name, language, prefix)
        return markdown.renderer.render(tokens, markdown.options, {})

    @staticmethod
    def _target(target: str, name: str) -> str:
        here = posixpath.dirname(name)
        return target.lstrip("/") if target.startswith("/") else posixpath.normpath(f"{here}/{target}")

    def _placed(self, tokens: Sequence[Token], name: str, language: str, prefix: str) -> list[Token]:
        """Pictures and links as they are inside the product; what is not there is text."""
        found: list[Token] = []
        kept: list[bool] = []
        for number, token in enumerate(tokens):
            if token.type == "softbreak" and _joins(tokens[number - 1], tokens[number + 1]):
                continue
            if token.type == "image":
                source = str(token.attrGet("src") or "")
                token.attrSet("src", f"{prefix}pictures/{posixpath.basename(source)}")
                token.attrSet("loading", "lazy")
            elif token.type == "link_open":
                kept.append(self._link(token, name, language, prefix))
                if not kept[-1]:
                    continue
            elif token.type == "link_close" and not kept.pop():
                continue
            found.append(token)
        return found

    def _link(self, token: Token, name: str, language: str, prefix: str) -> bool:
        target = str(token.attrGet("href") or "")
        if target.startswith(("http://", "https://", "mailto:")):
            token.attrSet("target", "_blank")
            token.attrSet("rel", "noopener noreferrer")
        elif not target.startswith(("#", prefix)):
            path, _, place = target.partition("#")
            where = self._target(path.removesuffix(".md"), name)
            token.attrSet("href", f"{prefix}{where}" + (f"#{place}" if place else ""))
            return self.source(where, language) is not None
        return True

    @staticmethod
    def _anchors(tokens: Sequence[Token]) -> None:
        for number, token in enumerate(tokens):
            if token.type == "heading_open":
                token.attrSet("id", anchor(tokens[number + 1].content))

    def picture(self, name: str) -> bytes | None:
        """A picture of the documentation."""
        path = self.root / "pictures" / name
        return path.read_bytes() if re.fullmatch(r"[a-z0-9-]+\.png", name) and path.is_file() else None


def _joins(before: Token, after: Token) -> bool:
    """Whether a line goes on without a space: Chinese has none between words."""
    return bool(_WIDE.fullmatch(before.content[-1:]) and _WIDE.fullmatch(after.content[:1]))


def anchor(heading: str) -> str:
    """The address of a heading within its page, as the web pages have it."""
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return html.escape("-".join(kept.split()))


#: Where each page's help opens: what an address begins with → page and heading. The longest that fits counts.
TOPICS: dict[str, str] = {
    "": "tutorial/first-steps",
    "projects": "topics/projects-and-files",
    "projects/new": "tutorial/first-steps",
    "explore": "how-to/find-and-fork",
    "datasets": "how-to/use-data-sets",
    "disks": "how-to/use-disks",
    "environments": "how-to/keep-environments",
    "workbenches": "how-to/use-a-workbench",
    "machine-time": "topics/metering",
    "schedules": "how-to/keep-a-cluster",
    "account": "topics/rights",
    "object-stores": "how-to/use-an-object-store",
    "admin": "topics/architecture",
    "admin/online": "topics/states",
    "admin/calendar": "how-to/keep-a-cluster",
    "admin/machine-time": "how-to/report-machine-time",
    "admin/people": "how-to/add-people",
    "admin/groups": "how-to/add-people",
    "admin/roles": "topics/rights",
    "admin/quotas": "how-to/set-quotas",
    "admin/release": "how-to/set-release-policies",
    "admin/machines": "topics/pools-and-machines",
    "admin/volumes": "how-to/add-a-volume",
    "admin/site": "how-to/write-the-home-page",
    "admin/archives": "how-to/move-projects",
    "admin/projects": "how-to/manage-all-projects",
    "admin/datasets": "how-to/manage-all-projects",
    "admin/environments": "how-to/keep-environments",
    "admin/audit": "topics/rights",
    "help": "tutorial/first-steps",
}


def first_page(*, admin: bool) -> str:
    """Where the help begins: people at their first steps, whoever runs the site at its installation."""
    return "how-to/install" if admin else "tutorial/first-steps"


def topic_of(path: str) -> str:
    """Where the help of a page opens; ``path`` is relative to the portal's prefix."""
    parts = path.strip("/").split("/")
    for length in range(len(parts), -1, -1):
        found = TOPICS.get("/".join(parts[:length]))
        if found:
            return found
    return TOPICS[""]


@lru_cache(maxsize=1)
def library() -> Library:
    """Where it is installed."""
    return Library()


def rendered(name: str, language: str, prefix: str) -> Any:
    """A page, kept once it was made: the files change with the product only."""
    return _kept(library(), name, language, prefix)


@lru_cache(maxsize=400)
def _kept(shelf: Library, name: str, language: str, prefix: str) -> HelpPage | None:
    return shelf.page(name, language, prefix)
