"""Looking for secrets in a layer, beside reading the same layer with ``tarfile`` alone.

Four layers of 256 MB unpacked: few large files, files of 1 to 64 KB as installed software, the same packed by gzip,
and the same sizes in a home directory, where more shapes are looked for.
Half of the bytes are text and half are random, as in installed packages. Eight secrets are looked for. The plain
side reads every member's bytes and does nothing with them.
"""

from __future__ import annotations

import gzip
import io
import random
import secrets
import tarfile
import time
from pathlib import Path

from benchmarks.harness import Figure, Report, pairs
from extensions.imagebuilder.secrets_scan import scan

MEGABYTES = 256
SOFTWARE = "opt/venv/lib/python3.11/site-packages"
LEAST_MB_PER_SECOND = 200
TEXT = (
    b"def answer(question, *, among=None):\n    return among.get(question, 42) if among else 42\n\n" * 12000
)


def layer(path: Path, smallest: int, largest: int, where: str = SOFTWARE) -> int:
    """Write a layer; its length in bytes."""
    drawn = random.Random(1)
    noise = drawn.randbytes(1 << 20)
    with tarfile.open(path, "w") as tar:
        left, number = MEGABYTES << 20, 0
        while left > 0:
            size = min(left, drawn.randint(smallest, largest))
            source = (TEXT, noise)[number % 2]
            begin = drawn.randrange(0, max(1, len(source) - size)) if size < len(source) else 0
            content = (source * (size // len(source) + 1))[begin : begin + size]
            info = tarfile.TarInfo(f"{where}/part{number % 97}/module{number}.py")
            info.size = size
            tar.addfile(info, io.BytesIO(content))
            left -= size
            number += 1
    return path.stat().st_size


def run(report: Report, directory: Path, count: int) -> None:
    """Measure all three."""
    known = {f"token {i}": secrets.token_hex(16).encode() for i in range(8)}
    large, small, packed = directory / "large.tar", directory / "small.tar", directory / "small.tar.gz"
    sizes = {large: layer(large, 20 << 20, 60 << 20), small: layer(small, 1 << 10, 64 << 10)}
    home = directory / "home.tar"
    sizes[home] = layer(home, 1 << 10, 64 << 10, "home/a/work")
    with small.open("rb") as source, gzip.open(packed, "wb", 6) as target:
        while block := source.read(1 << 20):
            target.write(block)
    sizes[packed] = sizes[small]
    for path, what in (
        (large, "few large files"),
        (small, "software"),
        (packed, "software, gzip"),
        (home, "home"),
    ):

        def ours(path: Path = path) -> float:
            begin = time.perf_counter()
            with path.open("rb") as stream:
                assert scan(stream, known) == []
            return sizes[path] / 1e6 / (time.perf_counter() - begin)

        def plain(path: Path = path) -> float:
            begin = time.perf_counter()
            with tarfile.open(path, "r|*") as tar:
                for member in tar:
                    if content := tar.extractfile(member):
                        while content.read(1 << 20):
                            pass
            return sizes[path] / 1e6 / (time.perf_counter() - begin)

        left, right = pairs(ours, plain, count)
        report.add(
            Figure(
                name=f"scan of a layer: {what}",
                ours=left,
                plain=right,
                unit="MB/s",
                bound=f"≥ {LEAST_MB_PER_SECOND} MB/s",
                met=sorted(left)[len(left) // 2] >= LEAST_MB_PER_SECOND,
                note="plain: tarfile reads it and looks for nothing",
            )
        )
