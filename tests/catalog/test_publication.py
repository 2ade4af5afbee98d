"""What publishing shows is said before it is done."""

from __future__ import annotations

import pytest

from services.catalog.publication import FOUND_MOST, check_unpublish, looks_secret, publication
from tests.catalog.people import refused


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        "a/.env.local",
        "id_rsa",
        "keys/server.pem",
        ".ssh/config",
        "x/.aws/anything",
        "kaggle.json",
        "A.KEY",
    ],
)
def test_what_opens_something_looks_secret(path: str) -> None:
    assert looks_secret(path)


@pytest.mark.parametrize(
    "path", ["README.md", "id_rsa.txt", "keyboard.py", "environment.yml", "monkey.csv", "pem/x"]
)
def test_what_opens_nothing_does_not(path: str) -> None:
    assert not looks_secret(path)


def test_everything_is_counted_and_only_the_first_secrets_are_named() -> None:
    files = [(f"{n}.pem", 1) for n in range(FOUND_MOST + 5)] + [("a.ipynb", 10), (".git/config", 2)]
    told = publication(files, unreadable=["bob/secret"])
    assert (told.files, told.size_bytes, told.notebooks, told.hidden) == (27, 37, 1, 1)
    assert (len(told.secrets), told.more_secrets, told.unreadable) == (FOUND_MOST, 5, ("bob/secret",))


def test_only_projects_become_private_again() -> None:
    check_unpublish("project")
    refused(409, lambda: check_unpublish("dataset"), "public-for-ever")
