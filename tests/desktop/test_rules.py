"""Choices, command lines and environment of a desktop, as tables."""

from __future__ import annotations

import itertools
import json
import os
import struct
from pathlib import Path

import pytest

from extensions.desktop import command, home
from extensions.desktop.choices import Application, Choices, applications, geometry

EDITOR = Application("editor", "Editor", "mousepad notes.txt")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1600x900", (1600, 900)), ("320x240", (320, 240)), ("7680x4320", (7680, 4320)),
        ("100x100", None), ("9999x9999", None), ("1600x900;reboot", None), ("", None), ("１６００x900", None),
    ],
)  # fmt: skip
def test_a_size_is_two_numbers_that_fit_a_screen(text: str, size: tuple[int, int] | None) -> None:
    assert geometry(text) == size


def test_applications_are_taken_by_their_names_and_nonsense_is_left_out() -> None:
    said = {
        "editor": {"title": "Editor", "command": "mousepad notes.txt"},
        "plain": "xclock",
        "Not a name": "xclock",
        "../../etc": "xclock",
        "empty": {"command": " "},
        "list": ["xclock"],
        "number": {"command": 5},
    }
    assert applications(json.dumps(said)) == {
        "editor": EDITOR, "plain": Application("plain", "plain", "xclock"),
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"'])
def test_what_is_no_list_of_applications_gives_none(text: str) -> None:
    assert applications(text) == {}


def test_wild_variables_give_the_usual_screen() -> None:
    assert Choices.read({"GALILEAN_DESKTOP_GEOMETRY": "9x9", "GALILEAN_DESKTOP_DPI": "-1"}) == Choices()


def test_the_server_listens_on_its_unix_socket_and_on_no_port() -> None:
    words = command.server_command("Xvnc", Choices(), folder_fd=7, display_fd=9, title="node-1")
    options = dict(itertools.pairwise(words))
    assert options["-rfbport"] == "-1"
    assert options["-nolisten"] == "tcp"
    assert options["-rfbunixmode"] == "0600"
    assert options["-rfbunixpath"] == "/proc/self/fd/7/vnc"
    assert options["-auth"] == "/proc/self/fd/7/xauthority"


def test_the_key_file_is_one_entry_for_any_display() -> None:
    content = command.key_file(b"0123456789abcdef")
    assert struct.unpack(">HHHH", content[:8]) == (0xFFFF, 0, 0, 18)
    assert content[8:26] == b"MIT-MAGIC-COOKIE-1"
    assert content[26:] == struct.pack(">H", 16) + b"0123456789abcdef"


def which(*names: str):
    return lambda name: f"/bin/{name}" if name in names else None


def test_an_application_runs_alone_under_the_window_manager_that_makes_it_fill_the_screen() -> None:
    words = command.session_command(Choices(), EDITOR, Path("/k.xml"), which("openbox", "dbus-run-session"))
    assert words is not None
    assert words[:2] == ["/bin/dbus-run-session", "--"]
    assert words[-1] == "mousepad notes.txt"
    manager = words[words.index("/bin/openbox") : -1]
    assert manager[:4] == ["/bin/openbox", "--sm-disable", "--config-file", "/k.xml"]
    assert "managed" in manager[-1], "the application waits until its window is given the keyboard"


def test_an_application_without_any_window_manager_cannot_be_had() -> None:
    assert command.session_command(Choices(), EDITOR, Path("/k"), which("dbus-run-session")) is None


def test_an_environment_may_bring_a_session_of_its_own() -> None:
    own = Choices(command="exec mwm")
    assert command.session_command(own, None, Path("/k"), which()) == ["/bin/bash", "-c", "exec mwm"]


def environment(**more: object) -> dict[str, str]:
    said: dict = {
        "display": "3", "key": Path("/h/xauthority"), "runtime": Path("/tmp/d"), "mark": "m", "language": "en", "locales": ["C.utf8"],
        "which": which(), **more,
    }  # fmt: skip
    return command.session_environment(
        {"HOME": "/h", "JUPYTERHUB_API_TOKEN": "secret", "DBUS_SESSION_BUS_ADDRESS": "old", "LC_ALL": "C"},
        **said,
    )


def test_programs_get_the_screen_and_not_the_tokens_of_the_server() -> None:
    made = environment()
    assert made["DISPLAY"] == ":3"
    assert made["XAUTHORITY"] == "/h/xauthority"
    assert "secret" not in made.values()
    assert "DBUS_SESSION_BUS_ADDRESS" not in made
    assert "GTK_IM_MODULE" not in made


def test_sockets_of_programs_and_of_their_bus_are_in_the_desktops_own_directory() -> None:
    assert environment()["XDG_RUNTIME_DIR"] == "/tmp/d"
    assert "<listen>unix:dir=/tmp/d</listen>" in command.bus_file(Path("/tmp/d"))
    for words in (["/bin/dbus-run-session", "--", "x"], ["/bin/dbus-launch", "--exit-with-session", "x"]):
        assert command.with_own_bus(words, Path("/b")) == [words[0], "--config-file=/b", *words[1:]]
    assert command.with_own_bus(["/bin/openbox"], Path("/b")) == ["/bin/openbox"]


def test_chinese_input_is_told_to_programs_where_it_is_installed() -> None:
    assert environment(which=which("fcitx5"))["XMODIFIERS"] == "@im=fcitx"
    assert environment(which=which("ibus-daemon"))["GTK_IM_MODULE"] == "ibus"


@pytest.mark.parametrize(
    ("language", "locales", "present", "made"),
    [
        ("zh_CN", ["C.utf8", "zh_CN.utf8"], "", "zh_CN.UTF-8"),
        ("zh_CN", ["C.utf8"], "C.UTF-8", "C.UTF-8"),
        ("zh_CN", ["C.utf8"], "POSIX", "C.UTF-8"),
        ("en", ["C.utf8", "en_GB.utf8", "zh_CN.utf8"], "en_GB.UTF-8", "en_GB.UTF-8"),
        ("en", ["C.utf8"], "de_DE.UTF-8", "C.UTF-8"),
    ],
)
def test_the_locale_is_the_persons_where_it_is_installed_and_always_writes_chinese(
    language: str, locales: list[str], present: str, made: str
) -> None:
    assert command.locale_for(language, locales, present) == made


def test_what_lies_on_the_desktop_is_kept_with_the_project(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    folder = home.write(tmp_path)
    assert folder == tmp_path / "work/Desktop"
    assert (tmp_path / "Desktop").resolve() == folder
    assert str(folder) in (tmp_path / ".config/user-dirs.dirs").read_text()


def test_where_work_is_read_only_all_agree_on_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    allows = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "work" and allows(path, mode))
    assert home.write(tmp_path) == home.desktop_folder(tmp_path) == tmp_path / "Desktop"
    assert (tmp_path / "Desktop").is_dir() and not (tmp_path / "work/Desktop").exists()


def test_a_desktop_that_lies_in_a_read_only_work_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work/Desktop").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert home.write(tmp_path) == home.desktop_folder(tmp_path) == tmp_path / "work/Desktop"


def test_settings_that_are_there_stay(tmp_path: Path) -> None:
    own = tmp_path / ".config/user-dirs.dirs"
    own.parent.mkdir()
    own.write_text("mine")
    home.write(tmp_path)
    home.write(tmp_path)
    assert own.read_text() == "mine"
    assert (tmp_path / "Desktop").is_dir()
