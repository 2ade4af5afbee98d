"""XSRF, headers, errors, language."""

from __future__ import annotations

import logging

import pytest

from galilean.tables import audit_log
from tests.web.conftest import Visitor, token_client
from tests.web.site import Site


def test_a_change_without_the_xsrf_token_is_refused(site: Site, alice: Visitor) -> None:
    run = site.cluster("alice")
    answer = alice.post(f"clusters/{run}/release", headers={"HX-Request": "true", "Sec-Fetch-Mode": "cors"})
    assert answer.status_code == 403
    assert answer.json()["reason"] == "xsrf"
    assert ("DELETE", "alice") not in {(a, b.split("/")[0]) for a, b in site.hub.calls}


def test_another_visitors_xsrf_token_is_refused(site: Site, alice: Visitor) -> None:
    run = site.cluster("alice")
    foreign = Visitor(site, "maria").xsrf()
    answer = alice.post(
        f"clusters/{run}/release",
        headers={"HX-Request": "true", "Sec-Fetch-Mode": "cors", "X-XSRFToken": foreign},
    )
    assert answer.status_code == 403


def test_a_token_needs_no_xsrf(site: Site) -> None:
    run = site.cluster("alice")
    with token_client(site, "alice") as script:
        assert script.post(f"clusters/{run}/release").status_code == 200
    assert [call for call in site.hub.calls if call[0] == "DELETE"]


def test_every_page_has_a_strict_policy_with_a_new_nonce(site: Site, alice: Visitor) -> None:
    first, second = (alice.get("").headers["Content-Security-Policy"] for _ in range(2))
    assert first != second
    assert "default-src 'none'" in first
    assert "frame-ancestors 'none'" in first
    assert "unsafe" not in first


def test_every_script_of_a_page_carries_the_nonce_or_has_an_address(alice: Visitor) -> None:
    answer = alice.get("")
    nonce = answer.headers["Content-Security-Policy"].split("'nonce-", 1)[1].split("'", 1)[0]
    for tag in answer.text.split("<script")[1:]:
        head = tag.split(">", 1)[0]
        assert "src=" in head or f'nonce="{nonce}"' in head


def test_names_that_people_wrote_are_escaped(site: Site, alice: Visitor) -> None:
    site.cluster("alice", "<img src=x onerror=alert(1)>", slug="evil")
    text = alice.get("").text
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


def test_an_unknown_page_is_told_as_a_page_to_browsers_and_as_a_document_to_scripts(alice: Visitor) -> None:
    page = alice.get("no/such/page")
    assert page.status_code == 404
    assert "There is no such page" in page.text
    assert page.headers["Content-Type"].startswith("text/html")
    script = alice.script("GET", "no/such/page")
    assert script.json()["detail"] == "There is no such page."


def test_an_unexpected_error_shows_a_number_and_nothing_else(
    site: Site, alice: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the database")

    alice.get("")
    site.portal.extras.append(broken)  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR):
        answer = alice.get("")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    number = answer.text.split("on our side (", 1)[1].split(")", 1)[0]
    assert number in caplog.text
    assert "the secret of the database" in caplog.text


def test_the_language_is_the_one_chosen_else_the_browsers(alice: Visitor) -> None:
    chinese = alice.get("", headers={"Accept-Language": "zh-CN"}).text
    assert "欢迎" in chinese
    alice.cookies.set("galilean_language", "en")
    assert "Welcome" in alice.get("", headers={"Accept-Language": "zh-CN"}).text


def test_assets_are_kept_for_a_year_only_under_the_address_of_their_content(
    site: Site, alice: Visitor
) -> None:
    page = alice.get("").text
    address = page.split('href="/services/portal/static/theme.css', 1)[1].split('"', 1)[0]
    right = alice.get("static/theme.css" + address)
    assert "immutable" in right.headers["Cache-Control"]
    assert alice.get("static/theme.css?v=old").headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["static/../app.py", "static/%2e%2e/handlers.py", "static//etc/passwd", "static/"]
)
def test_assets_never_leave_their_directories(alice: Visitor, path: str) -> None:
    assert alice.get(path).status_code in (403, 404)


def test_health_and_metrics_answer_the_machine(site: Site, alice: Visitor) -> None:
    import httpx

    base = f"http://127.0.0.1:{site.port}"
    assert httpx.get(base + "/health").json()["ok"] is True
    metrics = httpx.get(base + "/metrics").text
    assert "galilean_portal_answer_seconds" in metrics
    assert "alice" not in metrics


def test_the_audit_log_keeps_the_address_that_our_proxy_noted(site: Site, maria: Visitor) -> None:
    claimed = {"X-Real-Ip": "6.6.6.6", "X-Forwarded-For": "7.7.7.7, 10.0.0.9"}
    maria.headers.update(claimed)
    assert maria.script("POST", "admin/roles", data={"name": "desk"}).status_code == 200
    with site.portal.db.read() as conn:
        assert conn.execute(audit_log.select()).one().address == "10.0.0.9"
