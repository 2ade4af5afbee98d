"""The outputs of one cell, made of a kernel's messages as a notebook keeps them: pure.

Follows Jupyter's messaging protocol and the notebook format 4.5: streams of one name run together, a carriage
return overwrites its line, ``clear_output`` clears (or waits for the next output), displays are updated by
their id wherever they stand. Text is bounded: a cell that prints for days would otherwise fill memory and make
a notebook that nothing can open; its beginning and its end are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Text of streams that one cell keeps; of more, the first and the last half.
MOST_TEXT = 4 * 2**20
LEFT_OUT = "\n… {n} characters left out …\n"
#: Outputs that one cell keeps besides text.
MOST_OUTPUTS = 2000

Output = dict[str, Any]


class Outputs:
    """Collects the outputs of one execution."""

    def __init__(self) -> None:
        self.items: list[Output] = []
        self.count: int | None = None
        self.changed = 0
        self._clear_next = False

    def take(self, kind: str, content: Mapping[str, Any]) -> None:
        """Take one message of the iopub channel that belongs to this execution."""
        if kind == "stream":
            self._stream(str(content.get("name", "stdout")), str(content.get("text", "")))
        elif kind in ("display_data", "execute_result"):
            item: Output = {
                "output_type": kind,
                "data": dict(content.get("data") or {}),
                "metadata": dict(content.get("metadata") or {}),
            }
            if kind == "execute_result":
                item["execution_count"] = content.get("execution_count")
            self._add(item, (content.get("transient") or {}).get("display_id"))
        elif kind == "error":
            self._add(
                {
                    "output_type": "error",
                    "ename": str(content.get("ename", "")),
                    "evalue": str(content.get("evalue", "")),
                    "traceback": [str(line) for line in content.get("traceback") or ()],
                }
            )
        elif kind == "clear_output":
            if content.get("wait"):
                self._clear_next = True
            else:
                self._clear()
        elif kind == "execute_input":
            self.count = content.get("execution_count")
            self.changed += 1

    def update(self, display_id: str, content: Mapping[str, Any]) -> bool:
        """Update the displays of this id; whether there was one."""
        found = False
        for item in self.items:
            if item.get("_display_id") == display_id:
                item["data"] = dict(content.get("data") or {})
                item["metadata"] = dict(content.get("metadata") or {})
                found = True
        self.changed += found
        return found

    def told(self, text: str) -> None:
        """Add a sentence of ours, as if the cell had written it to its error stream."""
        last = self.items[-1] if self.items else None
        if last is not None and last["output_type"] == "stream" and not _text(last).endswith("\n"):
            text = "\n" + text
        self._stream("stderr", text.rstrip("\n") + "\n")

    def written(self) -> list[Output]:
        """The outputs as the notebook format has them, with text as lists of lines."""
        found = []
        for item in self.items:
            clean = {name: value for name, value in item.items() if not name.startswith("_")}
            if clean["output_type"] == "stream":
                clean["text"] = _text(item).splitlines(keepends=True)
            elif "data" in clean:
                clean["data"] = {kind: _lines(kind, value) for kind, value in clean["data"].items()}
            found.append(clean)
        return found

    def _clear(self) -> None:
        self.items.clear()
        self._clear_next = False
        self.changed += 1

    def _before(self) -> None:
        if self._clear_next:
            self._clear()
        self.changed += 1

    def _add(self, item: Output, display_id: str | None = None) -> None:
        self._before()
        if display_id:
            item["_display_id"] = display_id
        if len(self.items) >= MOST_OUTPUTS and item["output_type"] != "error":
            del self.items[MOST_OUTPUTS // 2]
        self.items.append(item)

    def _stream(self, name: str, text: str) -> None:
        self._before()
        last = self.items[-1] if self.items else None
        if last is None or last["output_type"] != "stream" or last["name"] != name:
            self._add({"output_type": "stream", "name": name, "_head": "", "_left_out": 0, "_tail": ""})
            last = self.items[-1]
        last["_tail"] = overwrite(last["_tail"], text)
        half = MOST_TEXT // 2
        if not last["_head"] and len(last["_tail"]) > MOST_TEXT:
            last["_head"], last["_tail"] = last["_tail"][:half], last["_tail"][half:]
        if last["_head"] and len(last["_tail"]) > MOST_TEXT:
            last["_left_out"] += len(last["_tail"]) - half
            last["_tail"] = last["_tail"][-half:]


def _text(stream: Output) -> str:
    middle = LEFT_OUT.format(n=stream["_left_out"]) if stream["_left_out"] else ""
    return stream["_head"] + middle + stream["_tail"]


def overwrite(before: str, text: str) -> str:
    r"""Text after ``before``, with lines overwritten where a ``\r`` says so; a ``\r`` at the end waits."""
    if "\r" not in text and not before.endswith("\r"):
        return before + text
    start = before.rfind("\n") + 1
    lines = (before[start:] + text).replace("\r\n", "\n").split("\n")
    return before[:start] + "\n".join(_overwritten(line) for line in lines)


def _overwritten(line: str) -> str:
    waits = line.endswith("\r")
    parts = line.rstrip("\r").split("\r")
    shown = ""
    for part in parts:
        shown = part + shown[len(part) :]
    return shown + ("\r" if waits else "")


def _lines(kind: str, value: Any) -> Any:
    """Text of a display as a list of lines; JSON stays what it is, and so does one line (base64)."""
    if isinstance(value, str) and (
        kind.startswith("text/") or kind in ("image/svg+xml", "application/javascript")
    ):
        return value.splitlines(keepends=True)
    return value
