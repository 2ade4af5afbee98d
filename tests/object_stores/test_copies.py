"""Import and export against a real object store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from galilean.errors import UserError
from galilean.reachable import Reachable
from services.files.progress import Cancelled, Progress
from services.files.root import Root
from services.object_stores import copies, rules
from services.object_stores.bucket import Bucket, Cut
from services.object_stores.copies import Course, Outcome, bring, send
from services.object_stores.rules import Key, Place
from tests.object_stores.conftest import opened
from tests.object_stores.server import ACCESS, ObjectStore


def course(**more: Any) -> Course:
    return Course(progress=Progress(), **more)


def take(bucket: Bucket, root: Root, **more: Any) -> Outcome:
    asked = {"prefix": "", "names": [], "folder": "", "taken": "leave", "course": course()} | more
    return bring(bucket, root, **asked)


def give(bucket: Bucket, root: Root, **more: Any) -> Outcome:
    return send(bucket, root, **({"chosen": [], "prefix": "", "taken": "leave", "course": course()} | more))


def test_objects_come_into_a_folder_with_their_times(
    object_store: ObjectStore, name: str, root: Root
) -> None:
    client = object_store.bucket(
        name, {"run/a.csv": b"1,2\n", "run/deep/er/b.bin": b"\0" * 3000, "other": b"x"}
    )
    with opened(object_store, name) as bucket:
        done = take(bucket, root, prefix="run/", folder="data")
    assert (done.copied, done.same, done.left_out, done.problems) == (2, 0, [], [])
    assert (root.root / "data/a.csv").read_bytes() == b"1,2\n"
    assert (root.root / "data/deep/er/b.bin").stat().st_size == 3000
    told = client.head_object(Bucket=name, Key="run/a.csv")["LastModified"]
    assert root.stat("data/a.csv").changed_at.replace(microsecond=0) == told


def test_what_is_there_and_the_same_is_not_fetched_again(
    object_store: ObjectStore, name: str, root: Root
) -> None:
    object_store.bucket(name, {"a": b"one", "b": b"two"})
    with opened(object_store, name) as bucket:
        take(bucket, root)
        (root.root / "b").write_bytes(b"mine")
        again = take(bucket, root)
        assert (again.copied, again.same, again.left_out) == (0, 1, [("b", "taken")])
        assert (root.root / "b").read_bytes() == b"mine"
        replaced = take(bucket, root, taken="replace")
        assert (replaced.copied, replaced.same) == (1, 1)
        assert (root.root / "b").read_bytes() == b"two"


@pytest.mark.parametrize(
    "rest",
    ["../up", "/etc/passwd", "a/../../b", "a//b", "./a", "nul\0x", "n" * 256, "tab\tx", "turn\u202egpj.exe",
     ".galilean-upload/x", "a/" * 101 + "b", ""],
)  # fmt: skip
def test_a_key_that_is_no_path_below_the_folder_is_none(rest: str) -> None:
    assert rules.path_of(rest) is None


def test_hostile_keys_are_left_out_and_told_and_nothing_is_outside(
    object_store: ObjectStore, name: str, root: Root
) -> None:
    object_store.bucket(
        name, {"fine": b"x", "turn\u202egpj": b"x", "Same": b"1", "same": b"2", "tab\tx": b"y"}
    )
    with opened(object_store, name) as bucket:
        done = take(bucket, root)
    assert done.copied == 3
    assert {why for _, why in done.left_out} == {"name"}
    assert len(done.left_out) == 2
    assert sorted(os.listdir(root.root)) == ["Same", "fine", "same"]
    assert sorted(os.listdir(root.root.parent)) == ["tree"]


def test_a_store_that_answers_with_other_keys_is_not_followed(
    object_store: ObjectStore, name: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.bucket(name, {"mine/a": b"x", "theirs": b"y"})
    with opened(object_store, name, "mine/") as bucket:
        real = bucket._client.list_objects_v2
        monkeypatch.setattr(bucket._client, "list_objects_v2", lambda **how: real(**how | {"Prefix": ""}))
        assert [one.key for one in bucket.page(folders=False).found] == ["mine/a"]


def test_a_line_that_breaks_is_gone_on_with_at_its_byte(
    object_store: ObjectStore, name: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(1_000_000)
    object_store.bucket(name, {"big": content})
    begun: list[int] = []
    real = Bucket.read

    @contextmanager
    def breaking(self: Bucket, found: Any, offset_bytes: int = 0) -> Iterator[Any]:
        begun.append(offset_bytes)
        with real(self, found, offset_bytes) as (pieces, encryption):

            def some() -> Iterator[bytes]:
                yield next(pieces)
                if len(begun) < 3:
                    raise Cut
                yield from pieces

            yield some(), encryption

    monkeypatch.setattr(Bucket, "read", breaking)
    waited: list[float] = []
    with opened(object_store, name) as bucket:
        done = take(bucket, root, course=course(pause=waited.append))
    assert done.copied == 1
    assert (root.root / "big").read_bytes() == content
    assert begun[0] == 0 and begun[1] > 0 and begun[2] > begun[1]
    assert len(waited) == 2


def test_an_object_that_changed_on_its_way_leaves_nothing(
    object_store: ObjectStore, name: str, root: Root
) -> None:
    client = object_store.bucket(name, {"a": b"first"})
    with opened(object_store, name) as bucket:
        listed = list(bucket.objects(""))
        client.put_object(Bucket=name, Key="a", Body=b"other")
        with pytest.raises(UserError) as caught:
            copies.fetch(bucket, root, "a", listed[0], taken="leave", course=course())
    assert caught.value.reason == "changed"
    assert not (root.root / "a").exists()


def test_content_that_is_not_what_the_store_says_is_not_kept(
    object_store: ObjectStore, name: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.bucket(name, {"a": b"right"})

    @contextmanager
    def lying(self: Bucket, found: Any, offset_bytes: int = 0) -> Iterator[Any]:
        yield iter([b"wrong"]), ""

    monkeypatch.setattr(Bucket, "read", lying)
    with opened(object_store, name) as bucket:
        done = take(bucket, root)
    assert done.problems[0][1].reason == "checksum"
    assert not (root.root / "a").exists()


def test_more_bytes_than_were_told_are_not_kept(
    object_store: ObjectStore, name: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.bucket(name, {"a": b"five."})

    @contextmanager
    def more(self: Bucket, found: Any, offset_bytes: int = 0) -> Iterator[Any]:
        yield iter([b"five.", b"x" * 10_000_000]), ""

    monkeypatch.setattr(Bucket, "read", more)
    with opened(object_store, name) as bucket:
        assert take(bucket, root).problems[0][1].reason == "changed"
    assert os.listdir(root.root) == []


def test_what_does_not_fit_is_refused_before_the_first_byte(
    object_store: ObjectStore, name: str, root: Root
) -> None:
    object_store.bucket(name, {"a": b"x" * 600, "b": b"x" * 600})
    with opened(object_store, name) as bucket, pytest.raises(UserError) as caught:
        take(bucket, root, room_bytes=lambda: 1000)
    assert (caught.value.status, caught.value.reason) == (507, "quota")
    assert os.listdir(root.root) == []


def test_one_that_is_larger_than_may_be_uploaded_is_told_and_the_others_come(
    object_store: ObjectStore, name: str, root: Root
) -> None:
    object_store.bucket(name, {"a": b"x" * 600, "b": b"x"})
    with opened(object_store, name) as bucket:
        done = take(bucket, root, limit_bytes=100)
    assert [path for path, _ in done.problems] == ["a"]
    assert done.copied == 1


def test_whoever_cancels_has_whole_files_only(object_store: ObjectStore, name: str, root: Root) -> None:
    object_store.bucket(name, {f"f{n}": b"x" * 300_000 for n in range(4)})
    progress = Progress()

    def still() -> None:
        if progress.size_bytes >= 700_000:
            progress.cancel()

    with opened(object_store, name) as bucket, pytest.raises(Cancelled):
        take(bucket, root, course=Course(progress=progress, still=still))
    sizes = [one.stat().st_size for one in root.root.iterdir() if one.is_file()]
    assert sizes and set(sizes) == {300_000}


def test_a_copy_that_may_not_go_on_tries_no_other_object(
    object_store: ObjectStore, name: str, root: Root
) -> None:
    object_store.bucket(name, {f"f{n}": b"x" * 1000 for n in range(5)})
    progress = Progress()
    asked: list[int] = []

    def still() -> None:  # said once, between two objects, as by whoever asks now and then
        if progress.size_bytes >= 2000 and not asked:
            asked.append(1)
            raise UserError(404, "gone", reason="store-unknown")

    with opened(object_store, name) as bucket, pytest.raises(copies.Ended):
        take(bucket, root, course=Course(progress=progress, still=still))
    assert sum(path.is_file() for path in root.root.iterdir()) == 1


def test_a_file_that_may_not_be_written_stops_no_other(
    object_store: ObjectStore, name: str, root: Root
) -> None:
    object_store.bucket(name, {"a": b"x", "b/c": b"y", "d": b"z"})
    (root.root / "b").write_bytes(b"a file where a folder would be")
    with opened(object_store, name) as bucket:
        done = take(bucket, root)
    assert (done.copied, [path for path, _ in done.problems]) == (2, ["b/c"])


def test_files_become_objects_small_and_in_parts(object_store: ObjectStore, name: str, root: Root) -> None:
    client = object_store.bucket(name)
    big = os.urandom(12 << 20)
    (root.root / "out").mkdir()
    (root.root / "out/big.bin").write_bytes(big)
    (root.root / "out/数据.csv").write_text("1,2")
    (root.root / "out/link").symlink_to("/etc/passwd")
    uploads: list[Any] = []
    with opened(object_store, name, "team/") as bucket:
        write = Bucket.write
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                Bucket,
                "write",
                lambda self, file, key, **more: write(
                    self, file, key, **more, part_bytes=5 << 20, one_request_bytes=1 << 20
                ),
            )
            done = give(
                bucket, root, chosen=["out"], prefix="2026/", course=course(keep_upload=uploads.append)
            )
    assert (done.copied, done.problems, done.left_out) == (2, [], [("out/link", "link")])
    assert object_store.keys(name) == {"team/2026/out/big.bin": 12 << 20, "team/2026/out/数据.csv": 3}
    assert client.get_object(Bucket=name, Key="team/2026/out/big.bin")["Body"].read() == big
    assert uploads[0][0] == "team/2026/out/big.bin" and uploads[-1] is None
    with opened(object_store, name, "team/") as bucket:
        again = give(bucket, root, chosen=["out"], prefix="2026/")
    assert (again.copied, again.same) == (0, 2)


def test_an_export_that_is_cancelled_leaves_no_object_and_no_parts(
    object_store: ObjectStore, name: str, root: Root
) -> None:
    client = object_store.bucket(name)
    (root.root / "big.bin").write_bytes(os.urandom(12 << 20))
    progress = Progress()

    def still() -> None:
        if progress.size_bytes > 7 << 20:
            progress.cancel()

    with opened(object_store, name) as bucket, root.open("big.bin") as file, pytest.raises(Cancelled):
        bucket.write(
            file,
            "big.bin",
            step=Course(progress=progress, still=still).step,
            part_bytes=5 << 20,
            one_request_bytes=1 << 20,
        )
    assert object_store.keys(name) == {}
    assert not client.list_multipart_uploads(Bucket=name).get("Uploads")


def test_objects_that_are_there_stay_unless_they_are_to_be_replaced(
    object_store: ObjectStore, name: str, root: Root
) -> None:
    client = object_store.bucket(name, {"a": b"theirs"})
    (root.root / "a").write_bytes(b"mine")
    with opened(object_store, name) as bucket:
        assert give(bucket, root).left_out == [("a", "taken")]
        assert client.get_object(Bucket=name, Key="a")["Body"].read() == b"theirs"
        assert give(bucket, root, taken="replace").copied == 1
    assert client.get_object(Bucket=name, Key="a")["Body"].read() == b"mine"


def test_a_long_list_comes_by_pages(object_store: ObjectStore, name: str) -> None:
    object_store.bucket(name, {f"d{n}/x": b"" for n in range(5)} | {f"f{n}": b"" for n in range(5)})
    with opened(object_store, name) as bucket:
        seen, cursor = [], None
        while True:
            page = bucket.page(limit=3, cursor=cursor)
            assert len(page.found) <= 3
            seen += [one.key for one in page.found]
            cursor = page.next
            if cursor is None:
                break
        assert sorted(seen) == [f"d{n}/" for n in range(5)] + [f"f{n}" for n in range(5)]


def test_a_wrong_key_and_a_missing_bucket_are_told_apart(object_store: ObjectStore, name: str) -> None:
    object_store.bucket(name)
    with opened(object_store, name, secret="wrong-secret") as bucket, pytest.raises(UserError) as caught:
        bucket.page()
    assert (caught.value.status, caught.value.reason) == (403, "store-key")
    assert "wrong-secret" not in str(caught.value) + repr(caught.value.__cause__)
    with opened(object_store, "no-such-bucket") as bucket, pytest.raises(UserError) as caught:
        bucket.page()
    assert caught.value.reason == "store-bucket"


def test_a_private_address_is_asked_only_when_the_centre_lists_it(
    object_store: ObjectStore, name: str
) -> None:
    place = Place(endpoint=object_store.endpoint, bucket=name)
    key = Key(access_key_id=ACCESS, secret="x")
    with Bucket(place, key, reachable=Reachable.parse([])) as bucket, pytest.raises(UserError) as caught:
        bucket.page()
    assert (caught.value.status, caught.value.reason) == (403, "store-private")


def test_times_are_of_utc() -> None:
    assert copies._second(datetime(2026, 1, 1, tzinfo=UTC)) == 1767225600
