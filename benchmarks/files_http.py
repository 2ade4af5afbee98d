"""Uploads and downloads of large files through the product's proxy, beside nginx behind the same proxy.

nginx gets its bytes by one PUT and writes them to the same disk, without waiting for the disk; ours come by tus in
pieces as the page sends them, and each piece that is acknowledged is on the disk. The sender is the same code for
both. Needs ``nginx`` (``BENCH_NGINX`` names its program); without it only ours is told.
"""

from __future__ import annotations

import base64
import http.client
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bench_proxy import add_route
from benchmarks.harness import Figure, Report, at_least, percentile
from tests.product.conftest import SETTINGS
from tests.product.product import Person, Product, free_port, running_product

LARGE_BYTES, PIECE_BYTES = 512 << 20, 64 << 20
PAGES, SENDERS = 150, 4
#: What comes in together while pages are looked at: a line of 1 Gbit/s, full. Senders of this machine would take its
#: processors away instead.
LINE_BYTES = 120e6
FLAT_BYTES = 64 << 20
LISTED, ROWS, LIST_MS = 10_000, 200, 200.0
API = "/services/portal/api/v1"
CONFIGURATION = """
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; client_max_body_size 0; client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:{port}; location /plain/ {{ alias {dir}/files/; dav_methods PUT; create_full_put_path on; }} }}
}}
"""


def program() -> str:
    """nginx, empty where there is none."""
    return (
        os.environ.get("BENCH_NGINX")
        or shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        or ""
    )


@contextmanager
def plain_server(directory: Path, product: Product) -> Iterator[str]:
    """nginx behind the product's proxy; its path there, empty without nginx."""
    if not program():
        yield ""
        return
    (directory / "files").mkdir(parents=True)
    port = free_port()
    configuration = directory / "nginx.conf"
    text = CONFIGURATION.format(dir=directory, port=port)
    configuration.write_text("user root;\n" + text if os.geteuid() == 0 else text)
    process = subprocess.Popen(
        [program(), "-c", str(configuration), "-p", str(directory), "-e", str(directory / "error.log")]
    )
    try:
        add_route(product, "/plain", f"http://127.0.0.1:{port}")
        time.sleep(1)
        yield "/plain"
    finally:
        process.terminate()
        process.wait(10)


class Sender:
    """One connection to the proxy."""

    def __init__(self, address: str, token: str) -> None:
        host, _, port = address.partition("//")[2].rstrip("/").partition(":")
        self.line = http.client.HTTPConnection(host, int(port), timeout=600, blocksize=1 << 18)
        self.token = token

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        self.line.request(method, path, body, {"Authorization": f"token {self.token}", **headers})
        return self.line.getresponse()

    def put(self, path: str, source: Path) -> None:
        with source.open("rb") as file:
            answer = self.ask("PUT", path, file, **{"Content-Length": str(source.stat().st_size)})
        answer.read()
        assert answer.status in (201, 204), answer.status

    def tus(self, base: str, source: Path, name: str, speed: float = 0) -> None:
        size = source.stat().st_size
        said = f"filename {base64.b64encode(name.encode()).decode()},ifTaken {base64.b64encode(b'replace').decode()}"
        answer = self.ask(
            "POST",
            f"{API}/{base}/uploads",
            **{"Tus-Resumable": "1.0.0", "Upload-Length": str(size), "Upload-Metadata": said},
        )
        answer.read()
        assert answer.status == 201, answer.status
        where = answer.headers["Location"]
        with source.open("rb") as file:
            for offset in range(0, size, PIECE_BYTES):
                answer = self.ask(
                    "PATCH",
                    where,
                    _Part(file, min(PIECE_BYTES, size - offset), speed),
                    **{
                        "Tus-Resumable": "1.0.0",
                        "Upload-Offset": str(offset),
                        "Content-Type": "application/offset+octet-stream",
                        "Content-Length": str(min(PIECE_BYTES, size - offset)),
                    },
                )
                answer.read()
                assert answer.status == 204, answer.status

    def get(self, path: str) -> int:
        answer = self.ask("GET", path)
        assert answer.status == 200, answer.status
        room, total = bytearray(1 << 18), 0
        while got := answer.readinto(room):
            total += got
        return total


class _Part:
    """The next so many bytes of an open file, so many in a second at most."""

    def __init__(self, file: Any, left: int, speed: float) -> None:
        self._file, self._left, self._speed = file, left, speed
        self._begin, self._sent = time.monotonic(), 0

    def read(self, size: int) -> bytes:
        if self._speed:
            time.sleep(max(0.0, self._begin + self._sent / self._speed - time.monotonic()))
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        self._sent += len(data)
        return data


def keep_sending(address: str, token: str, base: str, source: str, name: str, stop: Any) -> None:
    """One of several that upload all the time."""
    sender = Sender(address, token)
    while not stop.is_set():
        sender.tus(base, Path(source), name, LINE_BYTES / SENDERS)


def speed(seconds: float) -> float:
    """MB/s of the large file."""
    return LARGE_BYTES / 2**20 / seconds


def transfers(report: Report, product: Product, person: Person, directory: Path, count: int) -> None:
    """Upload and download, both sides in turn."""
    base = f"projects/{person.name}/{person.project('Bench files')}"
    source = directory / "large"
    with source.open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    sender = Sender(product.url, person.token)
    portal = psutil.Process(product.pid("portal"))
    sender.tus(base, source, "large")  # warm
    at_rest = portal.memory_info().rss
    peak = [at_rest]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], portal.memory_info().rss)

    with plain_server(directory / "nginx", product) as plain:
        watcher = threading.Thread(target=watch)
        watcher.start()
        sides = ["ours", "plain"] if plain else ["ours"]
        taken: dict[str, list[float]] = {f"{what} {side}": [] for what in ("up", "down") for side in sides}
        if plain:
            sender.put(f"{plain}/large", source)
        for number in range(count):
            for side in sides if number % 2 else reversed(sides):
                os.sync()
                begin = time.perf_counter()
                if side == "ours":
                    sender.tus(base, source, "large")
                else:
                    sender.put(f"{plain}/large", source)
                taken[f"up {side}"].append(speed(time.perf_counter() - begin))
                os.sync()
                begin = time.perf_counter()
                got = sender.get(f"{API}/{base}/files/large" if side == "ours" else f"{plain}/large")
                assert got == LARGE_BYTES
                taken[f"down {side}"].append(speed(time.perf_counter() - begin))
        over.set()
        watcher.join()
    size = f"{LARGE_BYTES >> 20} MB"
    for what, name in (
        ("up", f"files: upload of {size} through the proxy"),
        ("down", f"files: download of {size}"),
    ):
        note = "plain: nginx behind the same proxy" + (
            ", without waiting for the disk" if what == "up" else ""
        )
        if plain:
            report.add(
                at_least(name, taken[f"{what} ours"], taken[f"{what} plain"], 0.8, unit="MB/s", note=note)
            )
        else:
            report.add(Figure(name=name, ours=taken[f"{what} ours"], unit="MB/s", note="no nginx here"))
    grown = peak[0] - at_rest
    report.add(
        Figure(
            name="files: memory of the portal above rest meanwhile",
            ours=[grown / 2**20],
            unit="MB",
            bound=f"≤ {FLAT_BYTES >> 20} MB",
            met=grown <= FLAT_BYTES,
            note=f"at rest {at_rest >> 20} MB",
        )
    )


def pages_meanwhile(report: Report, product: Product, person: Person, directory: Path) -> None:
    """A page while several upload, beside the same page while nobody does."""
    slug = person.project("Bench pages")
    base = f"projects/{person.name}/{slug}"
    browser = person.sign_in()
    stop = multiprocessing.get_context("spawn").Event()

    def look() -> list[float]:
        taken = []
        for _ in range(PAGES):
            begin = time.perf_counter()
            answer = browser.get(f"/services/portal/{base}")
            taken.append((time.perf_counter() - begin) * 1000)
            assert answer.status_code == 200, answer.status_code
        return taken

    look()
    idle = look()
    senders = [
        multiprocessing.get_context("spawn").Process(
            target=keep_sending,
            args=(product.url, person.token, base, str(directory / "large"), f"large-{number}", stop),
        )
        for number in range(SENDERS)
    ]
    for one in senders:
        one.start()
    try:
        time.sleep(3)
        busy = look()
    finally:
        stop.set()
        for one in senders:
            one.join(120)
    before, during = percentile(idle, 0.95), percentile(busy, 0.95)
    report.add(
        Figure(
            name=f"files: a page during {SENDERS} parallel uploads",
            ours=busy,
            plain=idle,
            unit="ms",
            bound="p95 ≤ 2 × idle",
            met=during <= 2 * before,
            note=f"together 1 Gbit/s; p95 {during:.1f} ms; idle {before:.1f} ms; senders and all parts share {os.cpu_count()} CPUs",
        )
    )


def listing(report: Report, product: Product, person: Person) -> None:
    """The first rows of a large folder, by the API."""
    slug = person.project("Bench list")
    base = f"projects/{person.name}/{slug}"
    project = person.portal("GET", f"/{base}").json()["id"]
    (folder,) = (product.state / "volumes").glob(f"*/projects/{project}")
    (folder / "many").mkdir()
    for number in range(LISTED):
        (folder / "many" / f"result-{number}.csv").write_bytes(b"1")
    taken = []
    for _ in range(30):
        begin = time.perf_counter()
        answer = person.portal("GET", f"/{base}/files/many/", params={"limit": ROWS})
        taken.append((time.perf_counter() - begin) * 1000)
        assert len(answer.json()["items"]) == ROWS
    p95 = percentile(taken, 0.95)
    report.add(
        Figure(
            name=f"files: first {ROWS} of a folder of {LISTED:,} by the API",
            ours=taken,
            unit="ms",
            bound=f"≤ {LIST_MS:g} ms",
            met=p95 <= LIST_MS,
            note=f"p95 {p95:.1f} ms",
        )
    )


def run(report: Report, directory: Path, count: int) -> None:
    """All of them; the product's state and the files lie on one disk."""
    researcher = SETTINGS["roles"]["researcher"]
    roles = {**SETTINGS["roles"], "researcher": {"limits": {**researcher["limits"], "upload": "2G"}}}
    with tempfile.TemporaryDirectory(dir=directory) as beside:
        with running_product(directory, {**SETTINGS, "roles": roles}) as product:
            person = product.person("bench")
            transfers(report, product, person, Path(beside), count)
            pages_meanwhile(report, product, person, Path(beside))
            listing(report, product, person)
