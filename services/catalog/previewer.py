"""Previews in a process of their own, so that a file made to be slow or huge hurts nobody else.

A renderer reads one request a line from its standard input and answers with a length and a JSON object. It
is started when first needed, kept, and killed when an answer takes too long; the next request starts a new
one. It ends by itself when its input ends, which is when the portal does.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from galilean.errors import UserError, mark
from services.catalog.preview import Preview, preview, sentence
from services.files.root import Root

SECONDS = 10.0
MEMORY_BYTES = 2**30
ANSWER_BYTES = 64 * 2**20
PROCESSES = 2


class Previewer:
    """A few renderers, used by as many threads as like to.

    Parameters
    ----------
    seconds
        The most that one preview may take, waiting for a renderer not counted.
    processes
        How many previews are rendered at once.
    """

    def __init__(self, *, seconds: float = SECONDS, processes: int = PROCESSES) -> None:
        self._seconds = seconds
        self._free: queue.LifoQueue[_Renderer] = queue.LifoQueue()
        for _ in range(processes):
            self._free.put(_Renderer())
        self._processes = processes

    def preview(
        self,
        files: Root,
        path: str,
        *,
        language: str = "en",
        theme: str = "light",
        link_base: str = "",
        as_text: bool = False,
    ) -> Preview:
        """As :func:`services.catalog.preview.preview`, with limits of time and memory. Blocks.

        What takes too long gives a document that says so.

        Raises
        ------
        UserError
            404, 400, 403 as there; 503 when all renderers are busy for long.
        """
        request = {
            "root": os.fsencode(files.root).hex(),
            "path": os.fsencode(path).hex(),
            "language": language,
            "theme": theme,
            "link_base": link_base,
            "as_text": as_text,
        }
        try:
            renderer = self._free.get(timeout=2 * self._seconds)
        except queue.Empty:
            raise UserError(
                503, mark("Many previews are being made just now. Try again in a minute.")
            ) from None
        try:
            answer = renderer.ask(request, self._seconds)
        finally:
            self._free.put(renderer)
        if answer is None:
            slow = UserError(413, mark("This file takes too long to show. Download it to open it."))
            return sentence(slow, path, language=language, theme=theme)
        if "status" in answer:
            raise UserError(answer["status"], answer["message"], **answer["params"])
        return Preview(body=answer["body"].encode(), truncated=answer["truncated"])

    def close(self) -> None:
        """End the renderers that are not at work."""
        for _ in range(self._processes):
            try:
                self._free.get_nowait().end()
            except queue.Empty:
                return


class _Renderer:
    """One process, used by one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """The answer, or ``None`` when there was none in time (or the process died of its limits)."""
        try:
            process = self._ready()
            assert process.stdin is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answer = self._answer(process, time.monotonic() + seconds)
        except OSError:
            answer = None
        if answer is None:
            self.end()
        return answer

    def _ready(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.catalog.previewer"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Nothing that the portal knows by its environment, tokens above all, is known in there.
                env={
                    name: value
                    for name, value in os.environ.items()
                    if name in ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "HOME", "VIRTUAL_ENV")
                },
                start_new_session=True,
            )
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)
        return self._process

    def _answer(self, process: subprocess.Popen[bytes], until: float) -> dict[str, Any] | None:
        assert process.stdout is not None
        data = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, until - time.monotonic())):
                    return None
                piece = os.read(process.stdout.fileno(), 1 << 20)
                if not piece or len(data) > ANSWER_BYTES:
                    return None
                data += piece
                if len(data) > 8 and len(data) == 8 + int.from_bytes(data[:8], "big"):
                    return json.loads(bytes(data[8:]))

    def end(self) -> None:
        """Kill the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What a renderer answers to one request."""
    path = os.fsdecode(bytes.fromhex(request["path"]))
    try:
        result = preview(
            Root(Path(os.fsdecode(bytes.fromhex(request["root"])))),
            path,
            language=request["language"],
            theme=request["theme"],
            link_base=request["link_base"],
            as_text=request["as_text"],
        )
    except UserError as error:
        return {"status": error.status, "message": error.message, "params": error.params}
    except (MemoryError, RecursionError):
        slow = UserError(413, mark("This file takes too long to show. Download it to open it."))
        result = sentence(slow, path, language=request["language"], theme=request["theme"])
    return {"body": result.body.decode(), "truncated": result.truncated}


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        data = json.dumps(answer(json.loads(line))).encode()
        answers.write(len(data).to_bytes(8, "big") + data)
        answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, sys.stdout.buffer)
