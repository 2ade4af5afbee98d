"""The desktop against jupyter-remote-desktop-proxy unmodified, on the same server, session and window.

Page to the first frame (from the address to a drawn window in the canvas, desktop not yet running, and running),
frames per second of a window that moves all the time, nearby and where a question and its answer take a tenth of a
second, what an idle desktop holds in memory, and twenty desktops that are started at once. The other side is
installed by pip into a directory of its own, without what it needs: both run on this clone's packages.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.harness import Figure, Report, at_least, at_most
from extensions.desktop.choices import Choices
from extensions.desktop.session import Session
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.desktop.line import line

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "of-this-measurement"
OTHER = "jupyter-remote-desktop-proxy==3.0.1"
SECONDS = 5.0
#: A question and its answer on a long line.
FAR_SECONDS = 0.1
MANY, SETTLE_SECONDS = 20, 30.0

#: A red window that moves as fast as the X server takes it.
WINDOW = """
import ctypes, time
x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype = ctypes.c_void_p
for name in ("XCreateSimpleWindow", "XDefaultRootWindow", "XMapWindow", "XMoveWindow", "XSync"):
    getattr(x, name).argtypes = None
d = ctypes.c_void_p(x.XOpenDisplay(None))
x.XDefaultRootWindow.restype = ctypes.c_ulong
x.XCreateSimpleWindow.restype = ctypes.c_ulong
root = ctypes.c_ulong(x.XDefaultRootWindow(d))
big = ctypes.c_ulong(x.XCreateSimpleWindow(d, root, 0, 0, 3000, 2000, 0, ctypes.c_ulong(0), ctypes.c_ulong(0xCC2244)))
x.XMapWindow(d, big)
small = ctypes.c_ulong(x.XCreateSimpleWindow(d, big, 0, 300, 300, 200, 0, ctypes.c_ulong(0), ctypes.c_ulong(0x22CC44)))
x.XMapWindow(d, small)
n = 0
while True:
    x.XMoveWindow(d, small, n % 300, 320)
    x.XSync(d, 0)
    n += 3
    time.sleep(0.008)
"""

READ = """() => {
    const canvas = document.querySelector("canvas");
    if (!canvas || !canvas.width) return false;
    const [r, g] = canvas.getContext("2d").getImageData(canvas.width - 20, canvas.height - 20, 1, 1).data;
    return r > 180 && g < 80;
}"""

COUNT = """ms => new Promise(done => {
    const canvas = document.querySelector("canvas");
    const context = canvas.getContext("2d");
    let last = "", n = 0;
    const end = performance.now() + ms;
    const look = () => {
        const now = String(context.getImageData(0, 400, 600, 1).data);
        if (now !== last) { n += 1; last = now; }
        if (performance.now() < end) requestAnimationFrame(look); else done(n);
    };
    look();
})"""


@contextlib.contextmanager
def server(folder: Path, packages: Path, *, ours: bool, session: str) -> Iterator[tuple[str, Path]]:
    """A Jupyter server with either desktop in it; its address and HOME."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = folder
    (home / "work").mkdir(parents=True)
    start = home / "xstartup"
    start.write_text(f"#!/bin/sh\n{session}\n")
    start.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "GALILEAN"))}
    environment |= {
        "HOME": str(home),
        "GALILEAN_DESKTOP_COMMAND": session,
        "GALILEAN_DESKTOP_GEOMETRY": "1680x1050",
    }
    environment["JUPYTER_REMOTE_DESKTOP_PROXY_XSTARTUP"] = str(start)
    environment["PYTHONPATH"] = str(ROOT) if ours else os.pathsep.join([str(packages), str(ROOT)])
    extensions = {"extensions.desktop" if ours else "jupyter_remote_desktop_proxy": True, "jupyterlab": False}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", f"--port={port}",
                f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home / 'work'}",
                f"--ServerApp.jpserver_extensions={extensions}",
            ],
            cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/api/status", params={"token": TOKEN}, timeout=10).status_code == 200:
                    break
            time.sleep(0.1)
        yield url, home
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        end(home)


def of_home(home: Path) -> list[int]:
    """Processes with this HOME."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end(home: Path) -> None:
    """The other side's X server outlives its Jupyter server."""
    for pid in of_home(home):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def memory_bytes(home: Path) -> int:
    """What the desktop's processes hold, shared pages counted once; without the Jupyter server."""
    total = 0
    for pid in of_home(home):
        with contextlib.suppress(OSError):
            if b"jupyter_server" in Path(f"/proc/{pid}/cmdline").read_bytes():
                continue
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def visit(browser: Browser, url: str) -> tuple[float, Page]:
    """Open the page in a browser that never saw it; seconds until the window is in the picture."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    context.add_cookies(
        [{"name": name, "value": value, "url": url} for name, value in signed_in(url).items()]
    )
    begun = time.monotonic()
    page.goto(f"{url}/desktop/", wait_until="commit", timeout=120_000)
    page.wait_for_function(READ, polling=20, timeout=120_000)
    return time.monotonic() - begun, page


def signed_in(url: str) -> dict[str, str]:
    answer = httpx.get(f"{url}/login", params={"token": TOKEN}, follow_redirects=False, timeout=60)
    return dict(answer.cookies)


def one(browser: Browser, folder: Path, packages: Path, *, ours: bool) -> dict[str, float]:
    script = folder.parent / "window.py"
    script.write_text(WINDOW)
    session = f"exec /usr/bin/env python3 {script}"
    with server(folder, packages, ours=ours, session=session) as (url, _home):
        cold, page = visit(browser, url)
        page.context.close()
        warm, page = visit(browser, url)
        frames = page.evaluate(COUNT, SECONDS * 1000) / SECONDS
        page.context.close()
        with line(int(url.rpartition(":")[2]), FAR_SECONDS / 2) as far_line:
            _, page = visit(browser, far_line.url)
            far = page.evaluate(COUNT, SECONDS * 1000) / SECONDS
            page.context.close()
    return {"cold": cold, "warm": warm, "frames": frames, "far": far}


async def many(directory: Path, count: int) -> tuple[float, float]:
    """Seconds until so many whole desktops run that were asked for at once, and the MiB that each holds then."""
    homes = [directory / f"many-{number}" for number in range(count)]
    for home in homes:
        (home / "work").mkdir(parents=True)
    made = [
        Session(home / "desktop", Choices(), environ={"HOME": str(home), "PATH": os.environ["PATH"]})
        for home in homes
    ]
    begun = time.monotonic()
    try:
        await asyncio.gather(*(one.ensure() for one in made))
        seconds = time.monotonic() - begun
        await asyncio.sleep(SETTLE_SECONDS)
        down = [one.status() for one in made if one.state != "running"]
        assert not down, down
        return seconds, sum(memory_bytes(home) for home in homes) / count / 2**20
    finally:
        await asyncio.gather(*(one.stop() for one in made))


def idle_bytes(browser: Browser, folder: Path, packages: Path) -> int:
    """Memory of the installed desktop once it is drawn and nothing moves any more."""
    with server(folder, packages, ours=True, session="") as (url, home):
        context = browser.new_context()
        context.add_cookies(
            [{"name": name, "value": value, "url": url} for name, value in signed_in(url).items()]
        )
        context.new_page().goto(f"{url}/desktop/", wait_until="commit")
        last, same, until = 0, 0, time.monotonic() + 120
        while same < 5 and time.monotonic() < until:
            time.sleep(2)
            now = memory_bytes(home)
            same = same + 1 if now and abs(now - last) < 2**20 else 0
            last = now
        context.close()
        return last


def run(report: Report, directory: Path, count: int) -> None:
    packages = directory / "other"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), OTHER]
    subprocess.run(pip, check=True)
    sides: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for number in range(count):
            for ours in (True, False) if number % 2 == 0 else (False, True):
                sides[ours].append(one(browser, directory / f"{number}-{ours}", packages, ours=ours))
            print(f"    pair {number + 1}/{count}: {sides[True][-1]} against {sides[False][-1]}", flush=True)

        def of(name: str) -> tuple[list[float], list[float]]:
            return [row[name] for row in sides[True]], [row[name] for row in sides[False]]

        report.add(
            at_most("Desktop: page to first frame, not running before", *of("cold"), 1.0),
            at_most("Desktop: page to first frame, running", *of("warm"), 1.0),
            at_least("Desktop: frames of a moving window", *of("frames"), 1.0, unit="/s"),
            at_least("Desktop: the same at 100 ms", *of("far"), 1.0, unit="/s"),
        )
        held = idle_bytes(browser, directory / "idle", packages) / 2**20
        browser.close()
    report.add(
        Figure(
            name="Desktop: memory when idle",
            ours=[held],
            unit="MiB",
            note="XFCE and X server, one page was open",
        )
    )
    seconds, each = asyncio.run(many(directory, MANY))
    report.add(
        Figure(name=f"Desktop: {MANY} at once, until all are up", ours=[seconds], note="XFCE; none failed"),
        Figure(name=f"Desktop: memory of each of {MANY}", ours=[each], unit="MiB"),
    )
