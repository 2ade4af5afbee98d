"""People of the real product: a table becomes accounts that work, and what is taken away counts at once."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.product.product import Product, wait_for

#: As a registrar's spreadsheet saves it: semicolons, Chinese in GBK, one line that cannot be.
TABLE = "name;role;full name;mail\n" + "".join(
    f"s{number:03};student;学生{number};s{number}@example.edu\n" for number in range(1, 9)
)
FAULTY = TABLE + "s900;emperor;谁;\n"


def test_a_table_in_gbk_becomes_accounts_that_sign_in_and_run(product: Product, tmp_path: Path) -> None:
    file = tmp_path / "students.csv"
    file.write_bytes(FAULTY.encode("gb18030"))
    looked = product.command("people", "import", str(file), "--dry-run", code=1)
    assert "emperor" in looked
    known = {item["name"] for item in product.admin.portal("GET", "/people?limit=200").json()["items"]}
    assert "s001" not in known, "a dry run makes nothing"

    made = product.command("people", "import", str(file), code=1)
    table = made[made.index("name,") :]
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(table)) if row["name"]}
    password = rows["s001"]["password"]
    assert len(password) >= 12
    assert rows["s900"]["outcome"] == "left out"
    person = product.admin.portal("GET", "/people/s001").json()
    assert (person["roles"], person["full_name"]) == (["student"], "学生1")
    assert product.person_named("s001").sign_in(password).get("/services/portal/").status_code == 200

    # Blocked counts at once, for who is signed in as for tokens.
    student = product.person_named("s001")
    answer = product.admin.portal("PUT", "/people/s001/block", json={"reason": "left"})
    assert answer.status_code in (200, 204), answer.text
    assert student.portal("POST", "/projects", json={"name": "After all"}).status_code == 401
    with pytest.raises(AssertionError, match="Sign in"):
        student.sign_in(password)
    again = product.person_named(
        "s001"
    )  # a token that an administrator makes for a blocked person opens nothing
    assert again.portal("POST", "/projects", json={"name": "After all"}).status_code == 401
    told = product.admin.portal("GET", "/audit?q=s001").json()["items"]
    assert {"person.block", "person.create"} <= {line["action"] for line in told}


def test_the_last_import_is_undone_but_for_what_is_used(product: Product) -> None:
    text = TABLE.replace("s00", "u00")
    begun = product.admin.portal("POST", "/imports", json={"text": text, "file": "students.csv"})
    assert begun.status_code == 202, begun.text
    address = f"/imports/{begun.json()['id']}"
    wait_for(
        lambda: product.admin.portal("GET", address).json()["finished"], "the import is through", seconds=60
    )
    lines = product.admin.portal("GET", address).json()["lines"]
    assert {line["outcome"] for line in lines} == {"made"}
    used = product.person_named("u001")
    assert used.portal("POST", "/projects", json={"name": "Mine"}).status_code == 201
    undone = product.admin.portal("DELETE", address)
    assert undone.status_code == 200, undone.text
    left = {line["name"]: line["outcome"] for line in undone.json()["lines"]}
    assert left["u001"] == "kept"
    assert set(left.values()) == {"kept", "undone"}
    assert product.admin.portal("GET", "/people/u002").status_code == 404
