"""What people do on the nodes of a real Kubernetes beyond one notebook: programs over all of them, and ports for others."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from services.catalog.starter import starter_notebook
from tests.kubernetes.hub import Namespace, only_if_possible
from tests.kubernetes.test_product_outside import Outside, outside, released
from tests.lab.kubernetes import Kubernetes
from tests.product import shared_port
from tests.product.split import split

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(only_if_possible()), reason=only_if_possible() or "-"),
]

VARIABLES = "echo $MASTER_ADDR $NNODES $NODE_RANK $PET_NNODES $PET_NODE_RANK $PET_MASTER_ADDR"
SUM = "from mpi4py import MPI; c = MPI.COMM_WORLD; print(MPI.Get_processor_name(), c.allreduce(c.rank + 1))\n"


@pytest.fixture(scope="module")
def product(
    kubernetes: Kubernetes, namespace: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outside]:
    """With a host of their own for everybody, without which nothing is shared."""
    directory = tmp_path_factory.mktemp("doors")
    with outside(kubernetes, namespace, directory, {"ports": {"share": True}}, split) as running:
        yield running


def test_two_pods_work_as_one_without_an_option_and_a_port_of_them_is_lent_and_taken_back(
    product: Outside,
) -> None:
    ada, eve, mary = (product.person(name) for name in ("ada", "eve", "mary"))
    slug = ada.running("Heat flow", nodes=2, cpu=0.4, memory="1G")
    pods = [f"{product.base(ada, slug)}-{rank}" for rank in (0, 1)]

    def login(command: str, rank: int = 0) -> str:
        """What a command says to whoever typed it in a terminal of a node."""
        return product.namespace.execute(pods[0], "ssh", f"node-{rank}", command).strip()

    for rank in (0, 1):
        assert login("galilean-hosts", rank).split() == ["node-0", "node-1"]
        assert login(VARIABLES, rank) == f"node-0 2 {rank} 2 {rank} node-0"
    for name, content in (("sum.py", SUM.encode()), ("welcome.ipynb", starter_notebook("en"))):
        put = ada.portal("PUT", f"/projects/ada/{slug}/files/{name}", content=content)
        assert put.status_code in (200, 201), put.text
    assert sorted(login("mpirun python3 sum.py").splitlines()) == ["node-0 3", "node-1 3"]

    # The first notebook of a new project, over ssh as in a terminal: ipyparallel on both, watched live.
    said = login("jupyter execute --inplace --timeout=200 welcome.ipynb 2>&1 || true")
    notebook = json.loads(ada.portal("GET", f"/projects/ada/{slug}/files/welcome.ipynb").text)
    assert notebook["cells"][-1]["outputs"], said
    (shown,) = notebook["cells"][-1]["outputs"]
    assert "π ≈ 3.14" in "".join(shown["data"]["text/plain"]), said
    for node in ("node-0", "node-1"):
        assert f"'{node}': " in "".join(shown["data"]["text/plain"])

    shared_port.tell(ada, eve, mary, slug)
    released(product, ada, slug)
