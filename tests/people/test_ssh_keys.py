"""What is taken for a public key, and what never becomes a line of sshd's file."""

from __future__ import annotations

import base64
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from galilean.db import Database
from galilean.errors import UserError
from galilean.tables import audit_log
from services.people import ssh_keys, store
from services.people.ssh_keys import parse

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def line(key: object) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()  # type: ignore[attr-defined]


ED = line(ed25519.Ed25519PrivateKey.generate())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (ED, "ED25519"),
        (line(ec.generate_private_key(ec.SECP256R1())), "ECDSA"),
        (line(ec.generate_private_key(ec.SECP521R1())), "ECDSA"),
        (line(rsa.generate_private_key(65537, 2048)), "RSA"),
        (f"\n  {ED}   ada@laptop \r\n", "ED25519"),
    ],
)
def test_keys_of_today_are_taken(text: str, kind: str) -> None:
    key = parse(text)
    assert key.kind == kind and key.public == " ".join(text.split()[:2])


def test_the_fingerprint_is_the_one_that_ssh_shows(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(ED + "\n")
    shown = subprocess.check_output(["ssh-keygen", "-lf", str(tmp_path / "key.pub")], text=True)
    assert parse(ED).fingerprint == shown.split()[1]


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "ssh-ed25519", "ssh-ed25519 ", "ssh-ed25519 !!!!", "ssh-ed25519 AAAA", "hello",
        f'command="id" {ED}', f"cert-authority {ED}", f'environment="A=1" {ED}', f"no-pty,{ED}",
        f'permitopen="10.0.0.1:22" {ED}', f"{ED}\n{ED}", f"{ED}\ncommand=\"id\" {ED}", f"#{ED}", f"\0{ED}",
        ED[:-6], ED + "AAAA", ED.replace("ssh-ed25519", "ssh-rsa"),
        ED.replace("ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com"),
        "ssh-ed25519 " + base64.b64encode(b"\0" * 51).decode(),
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
        "ssh-rsa " + "A" * 9000, ED + " " + "x" * 9000,
        line(rsa.generate_private_key(65537, 1024)),
        line(dsa.generate_private_key(1024)),
        "ssh-ed25519\u00a0" + ED.split()[1], "ｓsh-ed25519 " + ED.split()[1],
    ],
)  # fmt: skip
def test_everything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(text)
    assert refused.value.status == 400


def test_a_private_key_is_told_apart_and_not_repeated() -> None:
    with pytest.raises(UserError) as refused:
        parse("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n")
    assert refused.value.reason == "private" and "c2VjcmV0" not in str(refused.value)


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_whatever_stands_behind_a_key_nothing_of_it_gets_into_the_line(more: str) -> None:
    try:
        key = parse(f"{ED} {more}")
    except UserError:
        return
    assert key.public == ED and key.comment.isprintable() and len(key.comment) <= ssh_keys.NAME_MOST


def _add(db: Database, user: str, text: str, name: str = "", most: int = 3) -> ssh_keys.KeptKey:
    with db.serialised("ssh-keys") as conn:
        return ssh_keys.add(conn, user, text, name, most=most, address="192.0.2.1", now=NOW)


def _new() -> str:
    return line(ed25519.Ed25519PrivateKey.generate())


def test_keys_are_kept_named_used_and_removed_with_lines_in_the_log(db: Database) -> None:
    first = _add(db, "ada", f"{ED} ada@laptop")
    second = _add(db, "ada", _new(), "  at\nhome ")
    assert (first.name, second.name) == ("ada@laptop", "at home")
    with db.write() as conn:
        ssh_keys.used(conn, "ada", [first.fingerprint], NOW + timedelta(hours=1))
        ssh_keys.remove(conn, "ada", second.id, actor="ada", address="192.0.2.1", now=NOW)
        ssh_keys.remove(conn, "ada", second.id, actor="ada", address="192.0.2.1", now=NOW)
        kept = ssh_keys.keys_of(conn, "ada")
        lines = conn.execute(select(audit_log.c.action, audit_log.c.address).order_by(audit_log.c.at)).all()
    assert [(key.id, key.used_at) for key in kept] == [(first.id, NOW + timedelta(hours=1))]
    assert sorted(tuple(item) for item in lines) == [
        ("ssh_key.add", "192.0.2.1"), ("ssh_key.add", "192.0.2.1"), ("ssh_key.remove", "192.0.2.1"),
    ]  # fmt: skip


def test_a_key_is_kept_once_by_one_person_and_nobody_keeps_too_many(db: Database) -> None:
    _add(db, "ada", ED)
    _add(db, "bob", ED)
    with pytest.raises(UserError, match="already"):
        _add(db, "ada", f"{ED} under another name")
    _add(db, "ada", _new())
    _add(db, "ada", _new())
    with pytest.raises(UserError, match="more than 3"):
        _add(db, "ada", _new())


def test_nobody_removes_or_uses_the_key_of_somebody_else(db: Database) -> None:
    mine = _add(db, "ada", ED)
    with db.write() as conn:
        ssh_keys.remove(conn, "bob", mine.id, actor="bob", address="", now=NOW)
        ssh_keys.used(conn, "bob", [mine.fingerprint], NOW)
        (kept,) = ssh_keys.keys_of(conn, "ada")
    assert kept.used_at is None


def test_who_gets_the_name_of_somebody_who_is_gone_gets_none_of_their_keys(db: Database) -> None:
    _add(db, "ada", ED)
    with db.write() as conn:
        store.forget(conn, "ada")
        assert ssh_keys.keys_of(conn, "ada") == []
