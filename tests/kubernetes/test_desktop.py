"""Desktops of pods, in a browser on the whole product: the image of desktops that people get, on a real Kubernetes.

The same story as with containers (``tests/docker/test_desktop.py``). The image is built first, gigabytes, so this is one
of the tests of images.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.desktop import story
from tests.kubernetes.hub import Namespace, only_if_possible
from tests.kubernetes.test_product_outside import outside
from tests.lab.images import built, load
from tests.lab.kubernetes import Kubernetes

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.images,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(only_if_possible()), reason=only_if_possible() or "-"),
]


def test_a_person_works_on_the_desktops_of_two_pods(
    kubernetes: Kubernetes, namespace: Namespace, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = story.settings({"image": load(kubernetes.directory, built("desktop")[1])})
    with outside(kubernetes, namespace, tmp_path_factory.mktemp("desktops"), settings) as product:
        story.tell(product, product.person("ada"), tmp_path)
        product.namespace.nothing_left()
