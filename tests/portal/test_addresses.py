"""People whose names are not letters and digits: every link that they are shown leads to what it names."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from urllib.parse import quote, urlsplit

import pytest

from services.portal.addresses import project_path
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_api import SHORT, _until

STRANGE = [
    "ada.lovelace@uni-x.edu",
    "ada lovelace",
    "a+b",
    "王小明",
    "100%",
    "50%25 off",
    'o\'neill "ada"',
    "a?b#c&d=e",
    "<b>ada</b>",
    "~ada;x",
]


def links(text: str) -> set[str]:
    """Addresses of this site that a page leads to."""
    found = re.findall(r'(?:href|action|hx-get|data-api|data-address)="([^"]+)"', text)
    return {html.unescape(link) for link in found if link.startswith("/")}


@pytest.mark.parametrize("name", STRANGE)
def test_every_link_of_a_person_with_a_strange_name_leads_where_it_says(
    site: LiveSite, sign: Sign, name: str
) -> None:
    site.hub.add(name, "researcher")
    person = sign(name)
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(site.url))
    project = made(person)
    escaped = quote(name, safe="@~")  # as jupyterhub escapes names in addresses
    assert project["url"] == f"/services/portal/projects/{escaped}/heat-flow"
    assert project["owner"] == name

    answer = person.post("/projects", json={"name": "Second"})
    assert person.get(origin + answer.headers["Location"]).json()["name"] == "Second"

    ran = timedelta(minutes=10)
    site.cluster(
        name, status="released", released=True, target="released", held=ran, project_id=project["id"]
    )
    started = person.post(f"/{project_path(name, 'heat-flow')}/clusters", json=SHORT)
    assert started.status_code in (201, 202), started.text

    cluster = _until(
        lambda: person.get(f"/clusters/{started.json()['id']}").json(),
        lambda model: model["status"] == "running",
        seconds=60,
    )
    base = f"/user/{escaped}/heat-flow/"
    assert cluster["url"] == base + "lab"
    assert [door["url"] for door in cluster["node_list"][0]["doors"]] == [
        base + "lab",
        base + "galilean/terminal",
    ]

    pages = ["", "projects", "machine-time"]
    own = project_path(name, "heat-flow")
    pages += [own, f"{own}/runs", f"{own}/settings", f"{own}/run"]
    seen: set[str] = set()
    for path in pages:
        page = person.get(site.url + path)
        assert page.status_code == 200, (path, page.text[:300])
        seen |= {link for link in links(page.text) if "/projects/" in link or "/user/" in link}
    assert any(link.startswith(project["url"]) for link in seen), "the pages do link to the project"
    for link in seen:
        if "/user/" in link:
            assert link.startswith(base), link
        else:
            answer = person.get(origin + link)
            assert answer.status_code in (200, 405), (link, answer.status_code)  # 405: an address to send to
