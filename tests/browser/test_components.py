"""The component sheet against its reference pictures, in both themes.

``GALILEAN_PICTURES=write`` makes the references anew. A few pixels may differ (fonts are smoothed a little
differently from machine to machine); a component that moved or changed its colour is more than that.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.browser.conftest import OpenPage

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parent / "pictures"
MOST_DIFFERENT = 0.004  # part of all pixels


def different(reference: Path, picture: Path) -> float:
    """Part of the pixels that differ visibly, by ImageMagick; 1.0 when the sizes differ."""
    result = subprocess.run(
        ["compare", "-metric", "AE", "-fuzz", "12%", str(reference), str(picture), "null:"],
        capture_output=True,
        text=True,
    )
    size = subprocess.run(
        ["identify", "-format", "%w %h\n", str(reference), str(picture)], capture_output=True, text=True
    )
    first, second = size.stdout.split("\n")[:2]
    if first != second:
        return 1.0
    width, height = map(int, first.split())
    return float(result.stderr.split()[0]) / (width * height)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_component_sheet_looks_as_it_was_drawn(open_page: OpenPage, theme: str, tmp_path: Path) -> None:
    page = open_page("maria", "components", theme=theme, width=700, height=900)
    page.evaluate("document.fonts.ready")
    page.evaluate("document.getAnimations().forEach(item => { item.pause(); item.currentTime = 0; })")
    picture = tmp_path / f"{theme}.png"
    page.locator("#sheet").screenshot(path=str(picture))
    reference = PICTURES / f"components-{theme}.png"
    if os.environ.get("GALILEAN_PICTURES") == "write":
        PICTURES.mkdir(exist_ok=True)
        subprocess.run(["convert", str(picture), "-colors", "128", "-strip", f"PNG8:{reference}"], check=True)
    part = different(reference, picture)
    assert part <= MOST_DIFFERENT, f"{part:.2%} of the picture differs: look at {picture}"
