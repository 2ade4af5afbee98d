"""The first notebook of a new project, so that nobody begins with an empty page.

It runs as it is in every environment: the standard library only. It greets, shows the nodes of the cluster
it runs on, says something to each of them, and, where ipyparallel is, has all of them work at once while one watches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from services.files.root import Entry, Root

NAME = "welcome.ipynb"

_TEXTS = {
    "en": (
        "# Welcome\n\nPress **Shift+Enter** in each grey cell, from the top. What you save here, next to this "
        "notebook, is in `~/work`: it stays when the cluster goes back.",
        "## Your nodes\n\nThis notebook runs on one node of your cluster. All nodes see the same files.",
        "## Work on another node\n\nNodes reach one another by name, `node-0`, `node-1` and so on, without a "
        "password. With a single node there is only `node-0`: ask for two when you press Run.",
        "Hello from",
        "There is one node; ask for two to see more here.",
        "There is no ssh on this machine, so the nodes cannot be reached from here.",
        "## All nodes at once, watched live\n\nipyparallel finds the nodes by itself and starts a Python on each of "
        "them. The numbers below change while the nodes work. These Pythons end with this notebook's kernel.",
        "ipyparallel is not in this environment.",
        "Pythons at work:",
        "Pieces done by each node:",
    ),
    "zh_CN": (
        "# 欢迎\n\n从上到下，在每个灰色单元格里按 **Shift+Enter**。与本笔记本放在一起的文件都在 `~/work` 里，"
        "集群释放之后依然保留。",
        "## 您的节点\n\n本笔记本运行在集群的一个节点上，所有节点看到的是同一批文件。",
        "## 使用其他节点\n\n节点之间可以直接用名字互相访问，如 `node-0`、`node-1`，不需要密码。"
        "只有一个节点时只有 `node-0`：运行项目时可以选择两个节点。",
        "来自以下主机的问候：",
        "目前只有一个节点；选择两个节点后，这里会显示更多内容。",
        "这台机器没有安装 ssh，因此无法从这里访问其他节点。",
        "## 让所有节点同时工作，并实时查看\n\nipyparallel 会自动找到各个节点，并在每个节点上启动 Python。"
        "节点工作时，下面的数字会随之变化。这些 Python 会随本笔记本的内核一同结束。",
        "此环境没有安装 ipyparallel。",
        "正在工作的 Python：",
        "各节点完成的份数：",
    ),
}

_NODES = """\
import os

rank = os.environ.get("GALILEAN_RANK", "0")
nodes = int(os.environ.get("GALILEAN_NODES", "1"))
for number in range(nodes):
    print(f"node-{{number}}", "{here}" if str(number) == rank else "")
"""

_REACH = """\
import shutil
import subprocess

if nodes == 1:
    print({alone!r})
elif shutil.which("ssh") is None:
    print({no_ssh!r})
else:
    for number in range(nodes):
        print(subprocess.run(["ssh", f"node-{{number}}", "hostname"], capture_output=True, text=True).stdout)
"""

_ENGINES = """\
import importlib.util

engines = None
if nodes == 1:
    print({alone!r})
elif importlib.util.find_spec("ipyparallel") is None:
    print({missing!r})
else:
    import ipyparallel

    cluster = ipyparallel.Cluster(log_level=30)
    engines = cluster.start_and_connect_sync(activate=False)
    print({at_work!r}, len(engines))
"""

_LIVE = """\
from collections import Counter


def throw(points):
    import os
    import random

    inside = sum(random.random() ** 2 + random.random() ** 2 < 1 for _ in range(points))
    return "node-" + os.environ.get("GALILEAN_RANK", "0"), inside


points, hits, done = 100_000, 0, Counter()
if engines is None:
    name, hits = throw(points)
    print("π ≈", 4 * hits / points)
else:
    shown = display("", display_id=True)
    for name, inside in engines.load_balanced_view().map_async(throw, [points] * 60, ordered=False):
        hits += inside
        done[name] += 1
        shown.update(f"π ≈ {{4 * hits / points / done.total():.5f}}   {pieces} {{dict(sorted(done.items()))}}")
"""


def starter_notebook(language: str) -> bytes:
    """The notebook's file in a language; English for one we do not speak."""
    (
        welcome, your_nodes, others, hello, alone, no_ssh, all_nodes, missing, at_work, pieces,
    ) = _TEXTS.get(language, _TEXTS["en"])  # fmt: skip
    here = {"zh_CN": "← 本笔记本"}.get(language, "← this notebook")
    cells = [
        ("markdown", welcome),
        ("code", f'import platform\n\nprint("{hello}", platform.node())'),
        ("markdown", your_nodes),
        ("code", _NODES.format(here=here)),
        ("markdown", others),
        ("code", _REACH.format(alone=alone, no_ssh=no_ssh)),
        ("markdown", all_nodes),
        ("code", _ENGINES.format(alone=alone, missing=missing, at_work=at_work)),
        ("code", _LIVE.format(pieces=pieces)),
    ]
    return json.dumps(notebook_of(cells, "welcome"), ensure_ascii=False, indent=1).encode() + b"\n"


def notebook_of(cells: Sequence[tuple[str, str]], name: str) -> dict[str, Any]:
    """A notebook of these cells, each ``markdown`` or ``code`` with its text; ``name`` makes their ids."""
    made = [_cell(kind, text) for kind, text in cells]
    for number, cell in enumerate(made):
        cell["id"] = f"{name}-{number}"
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        },
        "cells": made,
    }


def _cell(kind: str, source: str) -> dict[str, Any]:
    # Written out by hand: importing nbformat takes longer than a second.
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": source.strip()}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return cell


def write_starter(files: Root, language: str) -> Entry:
    """Put the notebook into a project; one that is there already stays. Blocks.

    Raises
    ------
    UserError
        409 when there is a file of this name.
    """
    return files.write(NAME, starter_notebook(language))
