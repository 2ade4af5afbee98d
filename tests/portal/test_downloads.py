"""A project's files as they are downloaded: in part, again, and never as a page of ours."""

from __future__ import annotations

from tests.portal.conftest import Sign, made

DATA = bytes(range(256)) * 20


def test_a_download_goes_on_where_it_broke_off(sign: Sign) -> None:
    alice = sign("alice")
    slug = made(alice)["slug"]
    where = f"/projects/alice/{slug}/files/page.html"
    assert alice.put(where, content=DATA).status_code == 201
    first = alice.get(where, headers={"Range": "bytes=0-99"})
    assert (first.status_code, first.content) == (206, DATA[:100])
    rest = {"Range": "bytes=100-", "If-Range": first.headers["ETag"]}
    assert alice.get(where, headers=rest).content == DATA[100:]
    alice.put(where, content=b"another", params={"overwrite": "true"})
    whole = alice.get(where, headers=rest)
    assert (whole.status_code, whole.content) == (200, b"another")
    assert whole.headers["Content-Security-Policy"].startswith("sandbox;")
    assert whole.headers["Content-Disposition"].startswith("attachment;")
    none = alice.get(where, headers={"Range": "bytes=7-"})
    assert (none.status_code, none.headers["Content-Range"]) == (416, "bytes */7")
