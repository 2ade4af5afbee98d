"""A hub that tells on SIGUSR2 how long its event loop was held up, and what its processor time was.

``python -m benchmarks.hub_app -f CONFIG``; it writes ``$BENCH_TOLD`` and begins anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

from jupyterhub.app import JupyterHub

STEP_SECONDS = 0.005


class BenchHub(JupyterHub):
    """See the module."""

    name = "jupyterhub"

    async def start(self) -> None:
        await super().start()
        self._gaps: list[float] = []
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, self._tell)
        self._watch = asyncio.create_task(self._watch_loop())

    async def _watch_loop(self) -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(STEP_SECONDS)
            self._gaps.append(time.perf_counter() - begin - STEP_SECONDS)

    def _tell(self) -> None:
        path = Path(os.environ["BENCH_TOLD"])
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps({"gaps": self._gaps, "cpu": time.process_time()}), encoding="utf-8")
        beside.replace(path)
        self._gaps = []


def main() -> None:
    BenchHub.launch_instance()


if __name__ == "__main__":
    from benchmarks.hub_app import main as run

    run()
