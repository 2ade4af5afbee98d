"""A layer is written as it is hashed and looked through: what is pushed is what was read."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tempfile
from pathlib import Path

import pytest

from extensions.imagebuilder import writing
from extensions.imagebuilder.container import secrets_of
from extensions.imagebuilder.saving import config_of
from extensions.imagebuilder.strip import Rules
from extensions.imagebuilder.writing import write_layer
from galilean.clock import utcnow
from tests.imagebuilder.layers import directory, entry, layer, link, listed

TOKEN = b"0123456789abcdef0123456789abcdef"


def test_digests_and_sizes_are_those_of_the_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(writing, "MEMBER_BYTES", 10_000)  # several members
    body = os.urandom(100_000)
    out = io.BytesIO()
    seen: list[int] = []
    written = write_layer(
        layer(directory("d"), entry("d/random", body), entry("tmp/x", b"x")), out, folder=tmp_path,
        deleted={"etc/motd"}, rules=Rules(), secrets={}, progress=seen.append,
    )  # fmt: skip
    packed = out.getvalue()
    unpacked = gzip.decompress(packed)
    assert written.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert written.diff_id == f"sha256:{hashlib.sha256(unpacked).hexdigest()}"
    assert (written.size_bytes, written.unpacked_bytes) == (len(packed), len(unpacked))
    found = listed(unpacked)
    assert "d/random" in found and "etc/.wh.motd" in found and "tmp/x" not in found
    assert written.stripped.entries["volatile"] == 1
    assert seen == sorted(seen)


def test_a_secret_is_found_in_what_is_pushed_and_not_in_what_is_left_out(tmp_path: Path) -> None:
    kept = layer(entry("home/ada/picture.png", b"abc" + TOKEN + b"def"))
    secrets = {"token": TOKEN}
    found = write_layer(
        kept, io.BytesIO(), folder=tmp_path, deleted=set(), rules=Rules(), secrets=secrets
    ).findings
    assert [(one.path, one.what) for one in found] == [("home/ada/picture.png", "token")]
    out = layer(entry("home/ada/.galilean/token", TOKEN))
    rules = Rules.of(own=["/home/ada/.galilean"])
    assert not write_layer(
        out, io.BytesIO(), folder=tmp_path, deleted=set(), rules=rules, secrets=secrets
    ).findings


def test_what_is_set_aside_lies_in_the_folder_that_was_looked_at_for_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "memory"))  # there is no such folder
    kept = layer(directory("tmp"), entry("tmp/x", b"data"), link("opt/x", "tmp/x"))
    out = io.BytesIO()
    write_layer(kept, out, folder=tmp_path, deleted=set(), rules=Rules(), secrets={})
    assert b"data" in gzip.decompress(out.getvalue())


def test_what_gives_up_ends_the_writing(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(done: int) -> None:
        if done > 1 << 20:
            raise Enough

    with pytest.raises(Enough):
        write_layer(
            layer(entry("a", bytes(5 << 20))),
            io.BytesIO(),
            folder=tmp_path,
            deleted=set(),
            rules=Rules(),
            secrets={},
            progress=stop,
        )


def test_the_config_is_the_parents_with_one_layer_more_and_nothing_of_a_container() -> None:
    parent = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "User": "1000"},
        "container": "c0ffee",
        "container_config": {"Env": ["JUPYTERHUB_API_TOKEN=x"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:a"]},
        "history": [{"created_by": "build"}],
    }
    body = config_of(parent, "sha256:b", now=utcnow())
    assert b"JUPYTERHUB" not in body and b"c0ffee" not in body
    assert b'"diff_ids":["sha256:a","sha256:b"]' in body
    assert b'"User":"1000"' in body


def test_secrets_of_a_run_are_its_tokens_and_keys_but_no_paths(tmp_path) -> None:
    (tmp_path / "id_ed25519").write_bytes(
        b"-----BEGIN X-----\nQUJDREVGR0hJSktM\nTU5PUFFSU1RVVldY\n-----END X-----\n"
    )
    (tmp_path / "known_hosts").write_bytes(b"galilean-cluster ssh-ed25519 AAAA")
    found = secrets_of(
        {
            "JUPYTERHUB_API_TOKEN": "t" * 32,
            "JPY_API_TOKEN": "t" * 32,
            "MY_PASSWORD": "p" * 20,
            "SHORT_TOKEN": "x",
            "GALILEAN_SECRETS": "/run/galilean/secrets",
            "SSH_KEY_SECRET": "/a/path/that/is/long",
        },
        [tmp_path],
    )
    assert sorted(found.values()) == [b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldY", b"p" * 20, b"t" * 32]


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_STORAGE_KEY",
        "DJANGO_SECRET_KEY",
        "MYSQL_PWD",
        "OPENAI_API_KEY",
        "PASSWORD",
        "PGPASSWORD",
        "SMTP_PASS",
        "TOKEN",
        "db_password",
    ],
)
@pytest.mark.parametrize("value", ["wJalrXUtnFEMI/K7MDENG", "/JalrXUtnFEMI/K7MDENG+b", "/one-long-password"])
def test_variables_are_secret_by_what_they_are_called_though_the_value_begins_with_a_slash(
    name, value
) -> None:
    assert secrets_of({name: value}, []) == {name: value.encode()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GOOGLE_TOKEN", "/home/Ada/My Keys/token.json"),
        ("PGPASSWORD", "/galilean-secrets/of-the-run/password"),
        ("PWD", "/Nowhere/that/is/secret"),
        ("GPG_KEY", "A035C8C19219BA821ECEA86B64E628F8"),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("TOKENIZERS_PARALLELISM", "false-and-sixteen"),
    ],
)
def test_paths_and_public_names_are_no_secrets(name, value) -> None:
    assert secrets_of({name: value}, []) == {}
