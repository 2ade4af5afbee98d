"""What a machine must have for a desktop."""

from __future__ import annotations

import pytest

from extensions.desktop import available

XFCE = {"Xtigervnc", "dbus-run-session", "xfce4-session"}


def which(*names: str):
    return lambda name: f"/usr/bin/{name}" if name in names else None


@pytest.mark.parametrize(
    "programs",
    [XFCE, {"Xvnc", "openbox"}, {"Xvnc", "icewm-session"}, {"Xvnc", "xfwm4", "dbus-launch"}],
)
def test_nothing_is_missing_with_a_server_and_something_that_manages_windows(programs: set[str]) -> None:
    assert available.missing(which(*programs)) == []


def test_an_empty_machine_is_told_what_to_install() -> None:
    lacking = available.missing(which())
    assert lacking[0] == "tigervnc-standalone-server"
    assert "xfce4-session" in lacking
    assert set(lacking) <= set(available.PACKAGES)


def test_xfce_without_a_message_bus_lacks_the_bus_alone() -> None:
    assert available.missing(which("Xvnc", "xfce4-session")) == ["dbus-daemon"]


def test_the_fullest_session_is_taken_and_its_bus_ends_with_it() -> None:
    assert available.session(which(*XFCE, "openbox")) == [
        "/usr/bin/dbus-run-session", "--", "/usr/bin/xfce4-session",
    ]  # fmt: skip
    assert available.session(which("xfce4-session", "dbus-launch")) == [
        "/usr/bin/dbus-launch", "--exit-with-session", "/usr/bin/xfce4-session",
    ]  # fmt: skip
    assert available.session(which("xfce4-session", "openbox")) == ["/usr/bin/openbox"]
