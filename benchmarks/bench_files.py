"""Files of a project: a folder of ten thousand, a large upload, a copy, a notebook's preview.

The plain sides are what one would write without a thought for links, broken uploads and time limits: look
at every entry by its path and sort by name; write a file under its own name; nbconvert in the same process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks import files_http
from benchmarks.harness import Figure, Report, timed
from services.catalog.preview import preview
from services.catalog.previewer import Previewer
from services.files.copies import copy_into
from services.files.root import Root

ENTRIES, PAGE = 10_000, 200
PIECE, PIECES = b"x" * 2**20, 128


def listing(report: Report, root: Path, pairs: int) -> None:
    folder = root / "many"
    folder.mkdir()
    for number in range(ENTRIES):
        (folder / f"result-{number}.csv").write_bytes(b"1")
    files = Root(root)

    def plain() -> None:
        names = sorted(os.listdir(folder))
        [os.stat(folder / name) for name in names]

    asks = {
        f"first {PAGE} of {ENTRIES:,} by name": lambda: files.list("many", limit=PAGE),
        f"{PAGE} of {ENTRIES:,} by name, from the middle": lambda: files.list(
            "many", limit=PAGE, cursor=middle
        ),
        f"first {PAGE} of {ENTRIES:,} by size": lambda: files.list("many", limit=PAGE, sort="size"),
    }
    middle = files.list("many", limit=1000).next
    for _ in range(4):
        middle = files.list("many", limit=1000, cursor=middle).next
    for name, ask in asks.items():
        ours, others = [], []
        for _ in range(pairs):
            others.append(1000 * timed(plain))
            ours.append(1000 * timed(ask))
        report.add(
            Figure(name=f"files: {name}", ours=ours, plain=others, unit="ms", note="plain: stat of all")
        )
    walk: list[float] = []
    for _ in range(pairs):
        walk.append(1000 * timed(files.usage))
    report.add(Figure(name=f"files: size of a project of {ENTRIES:,}", ours=walk, unit="ms"))


def uploading(report: Report, root: Path, pairs: int) -> None:
    files = Root(root)

    def ours() -> None:
        with files.upload("large", overwrite=True) as upload:
            for _ in range(PIECES):
                upload.write(PIECE)
            upload.finish()

    def plain() -> None:
        with (root / "plain").open("wb") as file:
            for _ in range(PIECES):
                file.write(PIECE)
            os.fsync(file.fileno())

    pairs_taken = [(timed(ours), timed(plain)) for _ in range(pairs)]
    report.add(
        Figure(
            name=f"files: {PIECES} MB written, whole or not at all",
            ours=[one for one, _ in pairs_taken],
            plain=[other for _, other in pairs_taken],
            note="plain: written under its own name, and synchronised",
        )
    )


def forking(report: Report, root: Path, pairs: int) -> None:
    source = root / "source"
    for folder in range(100):
        (source / f"folder-{folder}").mkdir(parents=True)
        for number in range(ENTRIES // 100):
            (source / f"folder-{folder}" / f"result-{number}.csv").write_bytes(b"1,2,3\n" * (20 + number * 7))
    ours, others = [], []
    for number in range(pairs + 1):
        plain, target = root / "plain", root / "ours"
        target.mkdir()
        for side in (0, 1) if number % 2 else (1, 0):  # neither always has the other's writing back behind it
            if side:
                taken = timed(lambda: copy_into(Root(source), Root(root / "ours")))
            else:
                taken = timed(lambda: subprocess.run(["cp", "-a", source, root / "plain"], check=True))
            if number:  # the first fills the caches
                (ours if side else others).append(taken)
        shutil.rmtree(plain)
        shutil.rmtree(target)
    figure = Figure(
        name=f"files: a tree of {ENTRIES:,} small files copied, as by a fork",
        ours=ours,
        plain=others,
        bound="≤ 1.2 × cp -a",
        note="plain: cp -a, with the start of its process",
    )
    report.add(dataclasses.replace(figure, met=(figure.ratio or 0) <= 1.2))


def previews(report: Report, root: Path, pairs: int) -> None:
    cell = {
        "cell_type": "code",
        "execution_count": 1,
        "metadata": {},
        "source": "import numpy as np\nfor i in range(10):\n    print(np.sin(i))  # a comment\n" * 3,
        "outputs": [{"output_type": "stream", "name": "stdout", "text": "0.123\n" * 40}],
    }
    text = {"cell_type": "markdown", "metadata": {}, "source": "# Title\n\nSome *text* with `code`.\n" * 5}
    notebook = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [text, cell] * 40}
    files = Root(root)
    files.write("n.ipynb", json.dumps(notebook).encode())

    from nbconvert import HTMLExporter

    exporter = HTMLExporter()
    exporter.from_filename(str(root / "n.ipynb"))
    preview(files, "n.ipynb")
    previewer = Previewer(processes=1)
    try:
        first = timed(lambda: previewer.preview(files, "n.ipynb"))
        ours, others = [], []
        for _ in range(pairs):
            ours.append(1000 * timed(lambda: previewer.preview(files, "n.ipynb")))
            others.append(1000 * timed(lambda: exporter.from_filename(str(root / "n.ipynb"))))
    finally:
        previewer.close()
    report.add(
        Figure(
            name="files: a notebook of 80 cells rendered, in its own process",
            ours=ours,
            plain=others,
            unit="ms",
            note=f"plain: nbconvert, warm; our first, with the process's start, {1000 * first:.0f} ms",
        )
    )


def run(report: Report, directory: Path, pairs: int) -> None:
    """All of them, on the disk of the temporary directory."""
    for part in (listing, uploading, forking, previews):
        root = directory / part.__name__
        root.mkdir()
        part(report, root, pairs)
    (directory / "http").mkdir()
    files_http.run(report, directory / "http", pairs)
