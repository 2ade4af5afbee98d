"""What an image lacks is told from what runtimes and Python say."""

from __future__ import annotations

import pytest

from spawner.docker import troubles as docker_troubles
from spawner.image_faults import NO_NODE_SIDE, lacking
from spawner.kubernetes import troubles as pod_troubles


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (
            'failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: '
            'unable to start container process: exec: "jupyterhub-singleuser": executable file not found in $PATH: unknown',
            "jupyterhub-singleuser",
        ),
        (
            'error during container init: exec: "/opt/galilean/bin/python": stat /opt/galilean/bin/python: '
            "no such file or directory: unknown",
            "python",
        ),
        ("crun: executable file `jupyterhub-singleuser` not found in $PATH: No such file or directory", "jupyterhub-singleuser"),
        ("/usr/bin/python3: Error while finding module specification for 'spawner.node.container' (ModuleNotFoundError: "
         "No module named 'spawner')", "galilean"),
        ("ModuleNotFoundError: No module named 'jupyterhub'", "jupyterhub"),
        ("ModuleNotFoundError: No module named 'spawners_of_mine'", ""),
        ("open /dev/x: no such file or directory", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_what_an_image_lacks_is_named(said: str, what: str) -> None:
    assert lacking(said) == what


RUNC = 'runc create failed: exec: "jupyterhub-singleuser": executable file not found in $PATH: unknown'


def test_docker_says_it_in_words() -> None:
    message, params = docker_troubles.why_not_made(RUNC)
    assert (message, params) == (NO_NODE_SIDE, {"lacking": "jupyterhub-singleuser"})
    message, params = docker_troubles.why_ended(
        "exited 1", "x\nModuleNotFoundError: No module named 'spawner'\n"
    )
    assert (message, params) == (NO_NODE_SIDE, {"lacking": "galilean"})
    message, params = docker_troubles.why_ended("exited 1", "boom")
    assert (message, params) == (docker_troubles.ENDED, {"how": "exited 1", "log": "boom"})


def test_kubernetes_says_it_in_words() -> None:
    def pod(state: dict[str, object], phase: str = "Pending") -> dict[str, object]:
        status = {"phase": phase, "containerStatuses": [{"name": "notebook", "image": "x", "state": state}]}
        return {"metadata": {"name": "p"}, "spec": {"nodeName": "m"}, "status": status}

    found = pod_troubles.trouble(pod({"waiting": {"reason": "RunContainerError", "message": RUNC}}))
    assert found is not None and found.final
    assert (found.message, found.params) == (NO_NODE_SIDE, {"lacking": "jupyterhub-singleuser"})
    for ended in (
        {"exitCode": 128, "reason": "StartError", "message": RUNC},
        {"exitCode": 1, "reason": "Error", "message": "ModuleNotFoundError: No module named 'jupyterhub'"},
    ):
        found = pod_troubles.trouble(pod({"terminated": ended}, "Failed"))
        assert found is not None and found.final and found.message == NO_NODE_SIDE
