"""Names of saved images."""

import hashlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from extensions.imagebuilder.names import (
    ImageName,
    Pinned,
    name_space,
    parse_typed,
    repository,
    require_own,
)
from galilean.errors import UserError

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    "text", ["a:1", "my-tools:2026.11", "cfd/openfoam_v12:0-1", "a__b:_x", "x" * 58 + ":1"]
)
def test_what_the_rules_allow_is_taken_as_typed(text):
    assert str(parse_typed(text)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "name-empty"),
        ("x" * 59 + ":1", "name-long"),
        ("Tools:1", "name-case"),
        ("tools:V1", "name-case"),
        ("tools:latest", "tag-latest"),
        ("tools", "tag-missing"),
        ("tools:", "tag-missing"),
        (":1", "name-shape"),
        ("../alice/tools:1", "name-shape"),
        ("a/../b:1", "name-shape"),
        ("a..b:1", "name-shape"),
        ("/a:1", "name-shape"),
        ("a//b:1", "name-shape"),
        ("a/:1", "name-shape"),
        ("-a:1", "name-shape"),
        ("a:.1", "tag-shape"),
        ("a:-1", "tag-shape"),
        ("a:1/2", "tag-shape"),
        ("a:1:2", "tag-shape"),
        ("a:1\n", "name-characters"),
        ("a b:1", "name-characters"),
        ("à:1", "name-characters"),
        ("a:１", "name-characters"),
        ("工具:1", "name-characters"),
        ("a@sha256:1", "name-digest"),
        ("sha256:abcdef012345", "name-digest"),
        ("tools/sha256:abcdef012345", "name-digest"),
        ("tools:sha256-abcdef", "name-digest"),
        ("registry.example.org/a:1", "name-address"),
        ("localhost/a:1", "name-address"),
        ("people/alice/a:1", "name-space"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_word_of_that_rule(text, reason):
    with pytest.raises(UserError) as refusal:
        parse_typed(text)
    assert (refusal.value.status, refusal.value.reason) == (422, reason)
    assert "{" not in str(refusal.value)


@given(st.text(alphabet="ab1.-_/:A@ ", max_size=64))
def test_whatever_is_typed_stays_below_the_own_name_space(text):
    try:
        name = parse_typed(text)
    except UserError:
        return
    assert len(text) <= 60
    require_own("alice", repository("alice", name))
    with pytest.raises(UserError):
        require_own("bob", repository("alice", name))


NAMES = st.one_of(st.text(max_size=60), st.text(alphabet="ab-A._@1", max_size=45))


@given(NAMES, NAMES)
def test_two_people_never_share_a_name_space(one, other):
    assume(one != other)
    assert name_space(one) != name_space(other)


@given(NAMES)
def test_every_user_name_has_a_name_space_that_a_registry_takes(user):
    Pinned("", repository(user, ImageName("tool", "1")), DIGEST)


def test_a_user_name_cannot_be_chosen_to_be_the_name_space_of_another():
    assert name_space("alice") == "alice"
    assert name_space("Alice") != "alice"
    taken = name_space("Alice")
    assert name_space(taken) != taken


@pytest.mark.parametrize("path", ["people/alice2/x", "people/alice", "people/alice/../bob/x", "alice/x", ""])
def test_a_repository_of_nobody_or_somebody_else_is_not_found(path):
    with pytest.raises(UserError) as refusal:
        require_own("alice", path)
    assert refusal.value.status == 404


def test_an_image_by_digest_is_read_as_it_was_written():
    for text in (f"localhost:5000/people/a/b@{DIGEST}", f"r.example.org/x@{DIGEST}", f"people/a/b@{DIGEST}"):
        assert str(Pinned.parse(text)) == text
    assert Pinned.parse(f"localhost:5000/a@{DIGEST}").registry == "localhost:5000"


@pytest.mark.parametrize(
    "text",
    [
        "a:1",
        "a@sha256:00",
        f"a@{DIGEST.upper()}",
        f"a:1@{DIGEST}",
        f"a@{DIGEST}\n",
        f"a@{DIGEST}@{DIGEST}",
        f"../a@{DIGEST}",
    ],
)
def test_what_is_no_digest_is_no_pinned_image(text):
    with pytest.raises(UserError):
        Pinned.parse(text)


def test_a_manifest_of_other_bytes_than_its_digest_is_refused():
    image = Pinned("", "a", "sha256:" + hashlib.sha256(b"manifest").hexdigest())
    image.require(b"manifest")
    with pytest.raises(UserError, match="another image"):
        image.require(b"manifest ")


def test_names_that_read_alike_have_name_spaces_of_their_own():
    users = [chr(code) for code in range(0x4E00, 0x4F00)]
    assert len({name_space(user) for user in users}) == len(users)
