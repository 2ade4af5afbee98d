"""The outputs of one cell, made of a kernel's messages as a notebook keeps them: pure.

Follows Jupyter's messaging protocol and the notebook format 4.5: streams of one name run together, a carriage
return overwrites its line, ``clear_output`` clears (or waits for the next output), displays are updated by
their id wherever they stand. All is bounded: a cell that prints or plots for days would otherwise fill memory
and make a notebook that nothing can open. Of a stream the beginning and the end are kept, of displays the
smaller ones; what is left out is said. A cell keeps so much, and all cells of a kernel together (:class:`Room`).
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

#: Text of streams that one cell keeps; of more, the first and the last half.
MOST_TEXT = 4 * 2**20
LEFT_OUT = "\n… {n} characters left out …\n"
#: Outputs that one cell keeps.
MOST_OUTPUTS = 2000
#: Characters of all its outputs that one cell keeps, and all cells of a kernel; and what a cell may keep also when
#: the others have used that up.
MOST_CELL, MOST_KERNEL, LEAST_CELL = 32 * 2**20, 128 * 2**20, 64 * 2**10
DROPPED = "… {n} outputs left out: too much to keep …\n"

Output = dict[str, Any]


class Room:
    """How much the cells of one kernel keep together.

    Attributes
    ----------
    used
        Characters. What a cell kept is given back when the cell is forgotten.
    """

    def __init__(self, most: int = MOST_KERNEL) -> None:
        self.most, self.used = most, 0

    def _give_back(self, held: list[int]) -> None:
        self.used -= held[0]


class Outputs:
    """Collects the outputs of one execution.

    Parameters
    ----------
    room
        Of the kernel; ``None`` = one of its own.
    """

    def __init__(self, room: Room | None = None) -> None:
        self._room = room or Room()
        self._held = [0]
        weakref.finalize(self, self._room._give_back, self._held).atexit = False
        self._dropped = 0
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
                self._count(item)
                found = True
        if found:
            self._fit()
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

    def _count(self, item: Output) -> None:
        """Take note of how much an item keeps now."""
        size = _size(item)
        more = size - item.get("_size", 0)
        item["_size"] = size
        self._held[0] += more
        self._room.used += more

    def _drop(self, place: int) -> None:
        """Leave an item out, and say so where it stood; of several once."""
        size = self.items.pop(place)["_size"]
        self._held[0] -= size
        self._room.used -= size
        self._dropped += 1
        said = next((item for item in self.items if "_said" in item), None)
        if said is None:
            said = {"output_type": "stream", "name": "stderr", "_head": "", "_left_out": 0, "_said": True}
            self.items.insert(place, said)
        said["_tail"] = DROPPED.format(n=self._dropped)

    def _fit(self) -> None:
        """Leave out as much as is too much, the largest first and errors last."""
        most = min(MOST_CELL, self._held[0] + self._room.most - self._room.used)
        while self._held[0] > max(LEAST_CELL, most):
            places = [place for place, item in enumerate(self.items) if "_said" not in item]
            self._drop(
                max(places, key=lambda p: (self.items[p]["output_type"] != "error", self.items[p]["_size"]))
            )

    def _clear(self) -> None:
        self._room.used -= self._held[0]
        self._held[0] = self._dropped = 0
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
            self._drop(next(p for p in range(MOST_OUTPUTS // 2, 0, -1) if "_said" not in self.items[p]))
        self.items.append(item)
        self._count(item)
        self._fit()

    def _stream(self, name: str, text: str) -> None:
        self._before()
        last = self.items[-1] if self.items else None
        if last is None or last["output_type"] != "stream" or last["name"] != name or "_said" in last:
            self._add({"output_type": "stream", "name": name, "_head": "", "_left_out": 0, "_tail": ""})
            last = self.items[-1]
        last["_tail"] = overwrite(last["_tail"], text)
        half = MOST_TEXT // 2
        if not last["_head"] and len(last["_tail"]) > MOST_TEXT:
            last["_head"], last["_tail"] = last["_tail"][:half], last["_tail"][half:]
        if last["_head"] and len(last["_tail"]) > MOST_TEXT:
            last["_left_out"] += len(last["_tail"]) - half
            last["_tail"] = last["_tail"][-half:]
        self._count(last)
        self._fit()


def _size(value: Any) -> int:
    """Characters that a value keeps, roughly."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(str(key)) + _size(item) for key, item in value.items() if key != "_size")
    if isinstance(value, (list, tuple)):
        return sum(8 + _size(item) for item in value)
    return 8


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
