"""What a newcomer waits for: from a fresh clone to the sign-in page, and from there to the first executed cell.

The clone is one of this repository's last commit, on a state directory of its own, with the caches of pip,
uv and npm as they are on this machine (warm after the first ``make dev``). Then Chromium takes the way of the
tutorial by clicks, as fast as the pages allow: all of its time is waiting. Clicks and typed texts are counted.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Locator, expect, sync_playwright

from benchmarks.harness import ROOT, Figure, Report
from tests.product.product import free_port, processes_of, wait_for

UP_MOST_SECONDS, WAIT_MOST_SECONDS, CLICKS_MOST = 120.0, 20.0, 7
WALKS = 5
ARGUMENTS = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]


class FreshClone:
    """``make up`` in a clone made a moment ago."""

    def __init__(self, directory: Path) -> None:
        self.clone, self.state, self.log = directory / "clone", directory / "state", directory / "up.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.clone)], check=True, timeout=120)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTERHUB_", "GALILEAN_"))}
        for name in ("VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
            kept.pop(name, None)
        kept["PATH"] = os.pathsep.join(
            folder for folder in kept["PATH"].split(os.pathsep) if not folder.startswith(str(ROOT))
        )
        self.environment = kept | {"GALILEAN_STATE": str(self.state), "PORT": str(self.port)}

    def up(self) -> float:
        """Seconds until the sign-in page is there."""
        begin = time.perf_counter()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["make", "up"],
                cwd=self.clone,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def signs_in() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"make up ended:\n{self.said()}")
            answer = httpx.get(f"{self.url}/hub/login", timeout=5)
            return answer.status_code == 200 and 'name="password"' in answer.text

        wait_for(signs_in, "the sign-in page", seconds=900, every=0.25)
        return time.perf_counter() - begin

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def password(self) -> str:
        """The administrator's, as the first start printed it."""
        found = re.search(r"^\s*password\s+(\S+)$", self.said(), re.MULTILINE)
        assert found, self.said()
        return found[1]

    def close(self) -> None:
        """Ctrl-C, and nothing of it stays."""
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(60)
        finally:
            for pid in processes_of(self.state):
                os.kill(pid, signal.SIGKILL)


def walk(clone: FreshClone, browser: Browser, name: str) -> tuple[float, int]:
    """From the sign-in page to the first output: seconds, and how often one must click."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(60_000)
    clicks = 0

    def click(what: Locator) -> None:
        nonlocal clicks
        what.click()
        clicks += 1

    try:
        page.goto(clone.url)
        page.get_by_label("User name").fill("admin")
        page.get_by_label("Password", exact=True).fill(clone.password)
        begin = time.perf_counter()
        click(page.get_by_role("button", name="Sign in"))
        page.wait_for_url("**/services/portal/**")
        click(page.get_by_role("link", name="New project").first)
        page.get_by_label("Name").fill(name)
        click(page.get_by_role("button", name="Make project"))
        page.wait_for_url(re.compile(r"/projects/admin/"))
        start = page.locator("#run-start")
        page.locator("#run-drawer").wait_for(state="attached")
        if not page.locator("#run-drawer[open]").count():
            click(page.get_by_role("button", name=re.compile("^Run")).first)
        expect(start).to_be_visible()
        click(start)
        page.wait_for_url("**/user/admin/**")
        # JupyterLab forgets what is run before its kernel answers; the line at the foot says when.
        expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)
        cell = page.locator(".jp-CodeCell").first
        click(cell)
        page.keyboard.press("Shift+Enter")
        expect(cell.locator(".jp-OutputArea-output").first).to_be_visible(timeout=60_000)
        return time.perf_counter() - begin, clicks
    except BaseException:
        (ROOT / "build").mkdir(exist_ok=True)
        page.screenshot(path=ROOT / "build" / "bench-up-failed.png")
        raise
    finally:
        context.close()


def release(clone: FreshClone) -> None:
    """Everything that is open, so that the next walk starts as the first did."""
    galilean = clone.clone / ".venv" / "bin" / "galilean"

    def said(*words: str) -> str:
        done = subprocess.run(
            [galilean, *words],
            cwd=clone.clone,
            env=clone.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    token = said("token", "admin").strip().splitlines()[-1]
    api = httpx.Client(
        base_url=f"{clone.url}/services/portal/api/v1",
        headers={"Authorization": f"token {token}"},
        timeout=60,
    )
    with api:
        for item in api.get("/clusters").raise_for_status().json()["items"]:
            api.delete(f"/clusters/{item['id']}").raise_for_status()
        wait_for(lambda: not api.get("/clusters").json()["items"], "all is released", seconds=30)


def run(report: Report, directory: Path, count: int) -> None:
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    clone = FreshClone(directory)
    try:
        seconds = clone.up()
        report.add(
            Figure(
                name="`make up`, fresh clone → sign-in page, warm caches",
                ours=[seconds],
                bound=f"≤ {UP_MOST_SECONDS:g} s",
                met=seconds <= UP_MOST_SECONDS,
            )
        )
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
            taken, clicks = [], 0
            for number in range(min(count, WALKS)):
                seconds, clicks = walk(clone, browser, f"First steps {number + 1}")
                print(f"    walk {number + 1}: {seconds:.1f} s, {clicks} clicks", flush=True)
                taken.append(seconds)
                release(clone)
            browser.close()
        report.add(
            Figure(
                name="waiting, sign-in page → first executed cell",
                ours=taken,
                bound=f"each ≤ {WAIT_MOST_SECONDS:g} s, ≤ {CLICKS_MOST} clicks",
                met=max(taken) <= WAIT_MOST_SECONDS and clicks <= CLICKS_MOST,
                note=f"{clicks} clicks, one typed name; the first walk {taken[0]:.1f} s",
            )
        )
    finally:
        clone.close()
