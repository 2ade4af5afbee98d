"""Entries of environments: what contradicts itself, or what the backend cannot give, is told with its line."""

from __future__ import annotations

import pytest

from galilean.settings import EnvironmentSettings, Settings, SettingsError, parse_settings


def entry(text: str, *, more: str = "") -> Settings:
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    source = f"{more}environments:\n  own:\n    title: Own\n{lines}defaults:\n  environment: own\n"
    return parse_settings(source, environ={})


def problem(text: str, *, more: str = "") -> str:
    with pytest.raises(SettingsError) as caught:
        entry(text, more=more)
    return "\n".join(caught.value.problems)


def test_an_entry_without_a_word_about_it_offers_jupyterlab():
    own = entry("").environments["own"]
    assert own.interfaces == ("jupyter",)
    assert (own.command, own.ports, own.needs_gpu, own.least_memory) == ("", (), False, 0)


def test_all_start_options_are_read():
    own = entry(
        "interfaces: [jupyter, desktop]\ncommand: ./serve --port 8050\nports: [8050]\nneeds_gpu: true\n"
        "least_memory: 4G\ndisplay: {width: 1280, height: 720, dpi: 120}\nvariables: {OMP_NUM_THREADS: '2'}"
    ).environments["own"]
    assert own.interfaces == ("jupyter", "desktop")
    assert (own.command, own.ports, own.least_memory) == ("./serve --port 8050", (8050,), 4 * 2**30)
    assert (own.display.geometry, own.display.dpi) == ("1280x720", 120)


def test_an_image_may_bring_its_own_vnc_server_and_its_password_is_printed_nowhere():
    own = entry(
        "interfaces: [desktop]\nvnc: {port: 5901, password: geheim, web_path: websockify}"
    ).environments["own"]
    assert own.vnc is not None
    assert (own.vnc.port, own.vnc.password, own.vnc.web_path) == (5901, "geheim", "websockify")
    assert "geheim" not in repr(own)
    assert "needs the interface desktop" in problem("vnc: {port: 5901}")
    assert "vnc.port: 8888 is the node's own" in problem("interfaces: [desktop]\nvnc: {port: 8888}")
    assert "vnc.web_path" in problem("interfaces: [desktop]\nvnc: {port: 5901, web_path: 'a?password=b'}")
    assert "vnc.port" in problem("interfaces: [desktop]\nvnc: {port: 80}")


def test_an_entry_with_no_jupyterlab_and_no_start_command_is_refused_with_the_reason():
    told = problem("interfaces: []")
    assert (
        told.startswith("galilean.yaml:2: environments.own: ") and "neither JupyterLab nor a desktop" in told
    )
    assert "offers nothing" in problem("interfaces: []\ncommand: ./serve")
    assert entry("interfaces: []\ncommand: ./serve\nports: [8050]").environments["own"].interfaces == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ports: [80]", "80 is no port from 1024 to 65535"),
        ("ports: [8050, 8050]", "each port is named once"),
        ("interfaces: [jupyter, jupyter]", "each interface is named once"),
        ("interfaces: [telnet]", "interfaces"),
        ("variables: {JUPYTERHUB_API_TOKEN: x}", "the product's own"),
        ("variables: {GALILEAN_RANK: '7'}", "the product's own"),
        ("variables: {'A B': x}", "no name of a variable"),
        ("display: {width: 10}", "display.width"),
        ("least_memory: a lot", "least_memory"),
    ],
)
def test_what_cannot_be_is_told(text: str, said: str):
    assert said in problem(text)


def test_what_the_backend_cannot_give_is_told_and_not_dropped():
    assert "environments.own.sudo: with backend process" in problem("sudo: true")
    assert "environments.own.hostname: with backend process" in problem("hostname: sim")
    docker = "backend: docker\ndocker:\n  image: local/jupyter\n"
    assert "the centre does not allow it (allow_sudo)" in problem("sudo: true", more=docker)
    own = entry("sudo: true\nhostname: sim", more=docker + "allow_sudo: true\n").environments["own"]
    assert (own.sudo, own.hostname) == (True, "sim")


@pytest.mark.parametrize("name", ["node-1", "Sim", "a_b", "-a", "node"])
def test_a_host_name_is_one_and_never_another_nodes(name: str):
    assert "host name" in problem(f"hostname: '{name}'", more="backend: docker\ndocker: {image: a/b}\n")


def test_applications_are_named_and_need_a_desktop() -> None:
    entry = {
        "title": "CAE",
        "interfaces": ["desktop"],
        "applications": {"paraview": {"title": "ParaView", "command": "paraview"}},
    }
    assert EnvironmentSettings.model_validate(entry).applications["paraview"].command == "paraview"
    for wrong in ({"interfaces": ["jupyter"]}, {"applications": {"No Name": {"title": "x", "command": "x"}}}):
        with pytest.raises(ValueError):
            EnvironmentSettings.model_validate({**entry, **wrong})


def test_containers_inside_are_the_centres_to_allow():
    docker = "backend: docker\ndocker: {image: a/b}\n"
    assert "environments.own.containers: with backend process" in problem("containers: true")
    assert "allow_containers" in problem("containers: true", more=docker)
    assert entry("containers: true", more=docker + "allow_containers: true\n").environments["own"].containers
    both = docker + "allow_containers: true\nallow_sudo: true\n"
    assert "not given together" in problem("containers: true\nsudo: true", more=both)
    kube = "backend: kubernetes\nallow_containers: true\n"
    assert "kubernetes.containers_seccomp" in problem("containers: true", more=kube)
