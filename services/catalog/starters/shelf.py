"""Which starter projects and data sets there are, in which words, with which files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.catalog.starter import NAME as WELCOME
from services.catalog.starter import starter_notebook
from services.catalog.starters import data
from services.catalog.starters.book import in_language, notebook

CONTENT = Path(__file__).parent / "content"
LANGUAGES = ("en", "zh_CN")


@dataclass(frozen=True, kw_only=True)
class StarterData:
    """A data set; names and texts as ``«English|中文»``."""

    slug: str
    name: str
    summary: str
    description: str
    field: str = ""
    tags: tuple[str, ...] = ()

    def files(self) -> Mapping[str, bytes]:
        """Its files by name."""
        table = {"weather": data.weather_csv, "leaves": data.leaves_csv}[self.slug]()
        readme = "\n\n".join(in_language(self.description, language) for language in LANGUAGES)
        return {f"{self.slug}.csv": table, "README.md": f"{readme}\n".encode()}


@dataclass(frozen=True, kw_only=True)
class Starter:
    """A project; names and texts as ``«English|中文»``.

    Attributes
    ----------
    source
        Name of the notebook's text in ``content``, and of the notebook.
    beside
        Other files of ``content`` (there with ``.txt`` behind) that the notebook needs.
    data
        Slugs of data sets.
    nodes
        How many nodes the Run panel starts with.
    """

    slug: str
    name: str
    description: str
    source: str
    beside: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    field: str = ""
    tags: tuple[str, ...] = ()
    nodes: int = 1

    def files(self, language: str) -> Mapping[str, bytes]:
        """Its files by name: the notebook in each language, the one of ``language`` without a mark in its name."""
        first = language if language in LANGUAGES else "en"
        source = (CONTENT / f"{self.source}.txt").read_text(encoding="utf-8")
        found: dict[str, bytes] = {"README.md": self._readme(first).encode()}
        for one in LANGUAGES:
            mark = "" if one == first else f".{one}"
            found[f"{self.source}{mark}.ipynb"] = notebook(source, one, self.source)
        for name in self.beside:
            text = (CONTENT / f"{name}.txt").read_text(encoding="utf-8")
            found[name] = in_language(text, first).encode()
        if self.slug == "first-notebook":
            found[WELCOME] = starter_notebook(first)
        return found

    def _readme(self, first: str) -> str:
        parts: list[str] = []
        for one in sorted(LANGUAGES, key=lambda language: language != first):
            mark = "" if one == first else f".{one}"
            name, text = in_language(self.name, one), in_language(self.description, one)
            how = in_language(
                f"Fork it, press **Run**, and open [`{self.source}{mark}.ipynb`]({self.source}{mark}.ipynb)."
                if one == "en"
                else f"复刻之后按**运行**，再打开 [`{self.source}{mark}.ipynb`]({self.source}{mark}.ipynb)。",
                one,
            )
            parts.append(f"# {name}\n\n{text}\n\n{how}\n")
        return "\n---\n\n".join(parts)


DATA = (
    StarterData(
        slug="weather",
        name="«A year at a weather station|气象站的一年»",
        summary="«Temperature, rain and wind of each day; made up|每天的气温、降雨和风速（虚构）»",
        description="«One row for each day of a year: mean temperature in °C, rain in mm, wind in m/s. The "
        "station does not exist, the numbers are made up: use them to learn, not to forecast.|一年中每天一行："
        "平均气温（°C）、降雨（mm）、风速（m/s）。这个气象站并不存在，数据是虚构的，仅供学习。»",
        field="physics",
        tags=("csv", "weather", "天气"),
    ),
    StarterData(
        slug="leaves",
        name="«Leaves of three trees|三种树的叶子»",
        summary="«Four measures of 180 leaves of birch, beech and hornbeam; made up|180 片桦树、山毛榉和鹅耳枥"
        "叶子的四项测量（虚构）»",
        description="«Length, width and stalk in cm, teeth of the edge, and which tree the leaf is from: birch, "
        "beech, hornbeam, 60 each, in a mixed order. The leaves are made up: use them to learn.|长度、宽度、叶柄"
        "（cm）、边缘锯齿数，以及树种：桦树、山毛榉、鹅耳枥，各 60 片，顺序打乱。这些叶子是虚构的，仅供学习。»",
        field="life",
        tags=("csv", "classification", "分类"),
    ),
)

STARTERS = (
    Starter(
        slug="first-notebook",
        name="«First notebook|第一个笔记本»",
        description="«What a notebook is, and what a cluster is, in five minutes.|用五分钟了解什么是笔记本、"
        "什么是集群。»",
        source="first-notebook",
        field="ai",
        tags=("beginner", "入门"),
    ),
    Starter(
        slug="plotting-a-data-set",
        name="«Plotting a data set|绘制数据集»",
        description="«Reads a year of weather from a data set and draws it.|从数据集中读取一年的天气并画图。»",
        source="plotting",
        beside=("plot.py",),
        data=("weather",),
        field="physics",
        tags=("beginner", "plot", "绘图"),
    ),
    Starter(
        slug="heat-over-two-nodes",
        name="«Heat over two nodes|两个节点上的热传导»",
        description="«The heat equation on a rod, half of it on each of two nodes. Also runs on one, and says so."
        "|求解杆的热传导方程，两个节点各算一半；只有一个节点时也能运行，并会说明。»",
        source="heat",
        beside=("heat.py", "plot.py"),
        field="physics",
        tags=("parallel", "simulation", "并行"),
        nodes=2,
    ),
    Starter(
        slug="a-small-training",
        name="«A small training|一次小训练»",
        description="«A model learns to tell three kinds of leaves apart; every step in plain Python.|模型学习区分"
        "三种叶子，每一步都用普通 Python 写成。»",
        source="training",
        beside=("plot.py",),
        data=("leaves",),
        field="ai",
        tags=("training", "训练"),
    ),
    Starter(
        slug="working-with-files",
        name="«Working with files|使用文件»",
        description="«Where files stay and where they go, how to write them safely, how to pack them up.|哪些文件"
        "会保留、哪些会消失，怎样安全地写入和打包。»",
        source="files",
        field="ai",
        data=("weather",),
        tags=("beginner", "files", "文件"),
    ),
    Starter(
        slug="an-interactive-page",
        name="«An interactive page|交互式页面»",
        description="«Sliders and drawings in a notebook, without any package.|在笔记本里使用滑块和绘图，无需任何"
        "软件包。»",
        source="page",
        field="physics",
        beside=("page.html",),
        tags=("interactive", "html", "交互"),
    ),
)


def said(text: str, language: str) -> str:
    """A text of the shelf in a language."""
    return in_language(text, language)
