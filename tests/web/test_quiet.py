"""Secrets of forms stay out of the log."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from jupyterhub import _xsrf_utils
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from tornado.log import app_log
from tornado.web import Application, RequestHandler

from galilean.web.quiet import _may_be_said, hide_form_ids


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    hide_form_ids()
    yield
    app_log.removeFilter(_may_be_said)


def test_the_id_behind_a_new_form_cookie_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    connection = SimpleNamespace(set_close_callback=lambda _: None)
    line = RequestStartLine("GET", "/", "HTTP/1.1")
    headers = HTTPHeaders({"Host": "x"})
    request = HTTPServerRequest(start_line=line, headers=headers, connection=connection)  # type: ignore[arg-type]
    handler = RequestHandler(Application(cookie_secret="c"), request)
    with caplog.at_level("DEBUG", logger=app_log.name):
        _xsrf_utils._set_xsrf_cookie(handler, b"the-id", cookie_path="/", xsrf_token=b"x")
        app_log.warning("Not accepting incorrect xsrf token id in cookie on %s", "/projects")
        app_log.info("something else")
    assert "the-id" not in caplog.text
    assert "Not accepting" in caplog.text
    assert "something else" in caplog.text
