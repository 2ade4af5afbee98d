"""One product for all tests of this folder; each test brings people of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.product.product import Person, Product, processes_of, running_product, wait_for
from tests.product.truth import FIGURES

_numbers = itertools.count(1)

SETTINGS = {
    "site": {"name": "Test centre", "timezone": "Asia/Shanghai"},
    "roles": {
        "admin": {"limits": {"clusters": 50, "nodes": 8, "total_cpu": 400, "total_memory": "800G"}},
        "student": {},
        "researcher": {
            "limits": {"clusters": 50, "nodes": 4, "cpu": 4, "total_cpu": 400, "total_memory": "800G"}
        },
        "narrow": {"limits": {"upload": "1M"}},
        "couple": {"limits": {"clusters": 2, "nodes": 2, "total_cpu": 400, "total_memory": "800G"}},
    },
    "defaults": {"cpu": 0.1, "memory": "64M", "release": "manual"},
    "process": {"cpu_overcommit": 200, "memory_overcommit": 50},
    # The proxy's word on presence is sampled often, so that no test waits half a minute for it.
    "jupyterhub": {"JupyterHub": {"concurrent_spawn_limit": 0}, "ClusterProxy": {"presence_seconds": 1}},
    # A busy machine is slow, not wrong.
    "gang_timeout_seconds": 480,
    "start_timeout_seconds": 480,
}
for _role in SETTINGS["roles"].values():
    _role.setdefault("limits", {})["manual_release"] = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/product/" in str(item.path):
            item.add_marker(pytest.mark.product)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := list(FIGURES.lines()):
        terminalreporter.section("truth after a fault, counted from the fault")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The product as ``galilean up`` starts it; when it ends nothing of it is left."""
    with running_product(tmp_path_factory.mktemp("product"), SETTINGS) as running:
        yield running
        assert running.end() == 0, running.said()
        wait_for(lambda: not processes_of(running.state), f"nothing is left of {running.state}", seconds=10)


@pytest.fixture
def person(product: Product) -> Iterator[Callable[..., Person]]:
    """``person(role)``: somebody new. What they still hold at the end of the test is released."""
    made: list[Person] = []

    def make(role: str = "researcher") -> Person:
        made.append(product.person(f"p{next(_numbers):03d}", role))
        return made[-1]

    yield make
    for somebody in made:
        for server in somebody.servers():
            somebody.stop(server)
    wait_for(
        lambda: not [run for run in product.open_runs() if run.user in {p.name for p in made}],
        "everything of this test is released",
        seconds=30,
    )


@pytest.fixture
def ada(person: Callable[..., Person]) -> Person:
    """A researcher."""
    return person()


@pytest.fixture
def grace(person: Callable[..., Person]) -> Person:
    """Another researcher."""
    return person()
