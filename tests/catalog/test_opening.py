"""Which notebook a project begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.catalog.opening import first_notebook, notebook_of
from services.catalog.starters.shelf import STARTERS, Starter
from services.files.root import Root


@pytest.mark.parametrize(
    ("names", "more", "first"),
    [
        ([], {}, ""),
        (["data.csv", "README.md", ".hidden.ipynb", ".ipynb"], {}, ""),
        (["only.ipynb", "data.csv"], {}, "only.ipynb"),
        (["b.ipynb", "a.ipynb"], {}, "a.ipynb"),
        (["a.ipynb", "welcome.ipynb"], {}, "welcome.ipynb"),
        (["a.ipynb", "welcome.ipynb"], {"readme": "Open a.ipynb"}, "a.ipynb"),
        (["a.ipynb", "b.ipynb", "c.ipynb"], {"readme": "First `c.ipynb`, then b.ipynb"}, "c.ipynb"),
        (["a.ipynb", "b c.ipynb"], {"readme": "[here](b%20c.ipynb)"}, "b c.ipynb"),
        (["heat.ipynb", "my-heat.ipynb"], {"readme": "see my-heat.ipynb"}, "my-heat.ipynb"),
        (["a.ipynb", "b.ipynb"], {"chosen": "b.ipynb", "readme": "a.ipynb"}, "b.ipynb"),
        (["a.ipynb", "b.ipynb"], {"chosen": "gone.ipynb"}, "a.ipynb"),
        (["a.ipynb", "a.zh_CN.ipynb"], {"language": "zh_CN"}, "a.zh_CN.ipynb"),
        (["a.ipynb", "a.zh_CN.ipynb"], {"language": "en"}, "a.ipynb"),
        (["甲.ipynb", "乙.ipynb"], {"readme": "先看乙.ipynb"}, "乙.ipynb"),
        (["bad\udcff.ipynb", "new\nline.ipynb"], {}, ""),
    ],
)
def test_the_notebook_to_begin_with_is_the_one_that_is_meant(
    names: list[str], more: dict[str, str], first: str
) -> None:
    assert first_notebook(names, **more) == first


def test_the_readme_of_a_project_names_it_be_it_one_of_a_thousand_files(tmp_path: Path) -> None:
    for number in range(1100):
        (tmp_path / f"a{number:04}.txt").touch()
    for name in ("z.ipynb", "y.ipynb"):
        (tmp_path / name).touch()
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "link.ipynb").symlink_to("/etc/passwd")
    assert notebook_of(Root(tmp_path)) == "y.ipynb"
    (tmp_path / "Readme.md").write_text("Begin with [z](z.ipynb).")
    assert notebook_of(Root(tmp_path)) == "z.ipynb"


@pytest.mark.parametrize("starter", STARTERS, ids=lambda one: one.slug)
def test_each_starter_opens_in_the_language_of_whoever_forked_it(starter: Starter, tmp_path: Path) -> None:
    for name, content in starter.files("en").items():
        (tmp_path / name).write_bytes(content)
    files = Root(tmp_path)
    english, chinese = notebook_of(files, language="en"), notebook_of(files, language="zh_CN")
    assert (english, chinese) == (f"{starter.source}.ipynb", f"{starter.source}.zh_CN.ipynb")
