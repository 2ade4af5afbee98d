"""Any sequence of operations does to the disk what it does to a dictionary, refusals included."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galilean.errors import UserError
from services.files import kernel
from services.files.copies import copy
from services.files.root import Root
from services.files.shelf import Shelf

FOLDER = None
NAMES = ["a", "b", "热", "a/a", "a/b", "b/热", "a/b/a"]
PATHS = st.sampled_from(NAMES)
STEPS = st.one_of(
    st.tuples(st.just("write"), PATHS, st.binary(max_size=3), st.booleans()),
    st.tuples(st.just("folder"), PATHS),
    st.tuples(st.just("rename"), PATHS, PATHS, st.booleans()),
    st.tuples(st.just("copy"), PATHS, PATHS),
    st.tuples(
        st.just("upload"), PATHS, st.binary(min_size=1, max_size=3), st.sampled_from(["refuse", "replace"])
    ),
    st.tuples(st.just("delete"), PATHS),
)
Model = dict[str, bytes | None]


class Refused(Exception):
    pass


def need(condition: bool) -> None:
    if not condition:
        raise Refused


def above(path: str) -> str:
    return path.rpartition("/")[0]


def folder_there(model: Model, path: str) -> bool:
    return path == "" or (path in model and model[path] is FOLDER)


def below(model: Model, path: str) -> Model:
    return {
        key[len(path) :]: value for key, value in model.items() if key == path or key.startswith(path + "/")
    }


def drop(model: Model, path: str) -> None:
    for key in [key for key in model if key == path or key.startswith(path + "/")]:
        del model[key]


def expect(model: Model, step: tuple[Any, ...]) -> None:
    """The same on a dictionary."""
    kind, path = step[0], step[1]
    if kind == "write":
        need(folder_there(model, above(path)))
        need(path not in model or (step[3] and model[path] is not FOLDER))
        model[path] = step[2]
    elif kind == "upload":
        need(path not in model or (step[3] == "replace" and model[path] is not FOLDER))
        parts = path.split("/")[:-1]
        steps = ["/".join(parts[: number + 1]) for number in range(len(parts))]
        need(all(folder not in model or model[folder] is FOLDER for folder in steps))
        model.update(dict.fromkeys(steps, FOLDER) | {path: step[2]})
    elif kind == "folder":
        need(folder_there(model, above(path)))
        need(path not in model)
        model[path] = FOLDER
    elif kind in ("rename", "copy"):
        target = step[2]
        need(not target.startswith(path + "/"))
        need(path in model)
        need(folder_there(model, above(target)))
        if kind == "rename" and target == path:
            return
        over = kind == "rename" and step[3]
        need(target not in model or (over and model[target] is not FOLDER and model[path] is not FOLDER))
        moved = below(model, path)
        if kind == "rename":
            drop(model, path)
        model.update({target + rest: value for rest, value in moved.items()})
    else:
        need(path in model)
        drop(model, path)


def act(root: Root, step: tuple[Any, ...]) -> None:
    kind, path = step[0], step[1]
    if kind == "write":
        root.write(path, step[2], overwrite=step[3])
    elif kind == "folder":
        root.make_folder(path)
    elif kind == "rename":
        root.rename(path, step[2], overwrite=step[3])
    elif kind == "copy":
        copy(root, path, root, step[2])
    elif kind == "delete":
        root.delete(path, recursive=True)
    else:
        shelf = Shelf(root)
        upload = shelf.begin(path, len(step[2]), by="a", taken=step[3]).record.id
        try:
            with shelf.write(upload, by="a") as writing:
                writing.write(step[2])
                writing.finish()
        finally:
            shelf.remove(upload, by="a")


def on_disk(root: Path) -> Model:
    return {
        str(path.relative_to(root)): FOLDER if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
    }


@pytest.mark.parametrize("beneath", [True, False])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=20))
def test_the_disk_does_what_a_dictionary_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beneath: bool, steps: list[tuple[Any, ...]]
) -> None:
    monkeypatch.setattr(kernel, "OPENS_BENEATH", beneath and kernel.OPENS_BENEATH)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    root, model = Root(tmp_path), {}
    for step in steps:
        wanted = dict(model)
        try:
            expect(wanted, step)
        except Refused:
            with pytest.raises(UserError):
                act(root, step)
        else:
            act(root, step)
            model = wanted
        assert on_disk(tmp_path) == model, step
