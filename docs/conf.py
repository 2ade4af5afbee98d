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
exclude_patterns = ["_build", "_ext"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = "Galilean"
html_static_path: list[str] = []
html_show_sphinx = False
html_copy_source = False
