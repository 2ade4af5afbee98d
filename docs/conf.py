"""How the documentation is built: Markdown by MyST, the theme furo, no warning let through."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

project = "Galilean"
author = "the Galilean authors"
project_copyright = "2026, the Galilean authors"
release = version = installed("galilean")

extensions = ["myst_parser", "from_source"]
source_suffix = {".md": "markdown"}
# Chinese pages are read inside the product, where their English is beside them.
exclude_patterns = ["_build", "_ext", "zh_CN"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = "Galilean"
html_static_path: list[str] = []
html_show_sphinx = False
html_copy_source = False
