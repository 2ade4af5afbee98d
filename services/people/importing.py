"""People from a table: what stands in a CSV file, line by line, and what is wrong with it (AP-33, CG-44, SC-25).

Pure: nothing is made here. Files come from Excel and its like, so commas, semicolons and tabs separate,
UTF-8 (with or without a mark) and GBK are told apart, and heads may be English or Chinese. A line with a
fault is told with its number and left out; the others go on.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from galilean.errors import UserError, mark
from galilean.rights import Rights

LINES_MOST = 5000
#: Lines under way at the hub. It hashes only some passwords at once; the others are asked for and noted meanwhile.
AT_ONCE = 4
BYTES_MOST = 2 * 2**20
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?", re.ASCII)
_MAIL = re.compile(r"[A-Za-z0-9.+_-]+@[A-Za-z0-9._-]+\.[a-zA-Z]+")

#: What heads may be called.
HEADS: Mapping[str, tuple[str, ...]] = {
    "name": ("name", "user", "username", "account", "login", "账号", "用户名", "学号", "工号"),
    "roles": ("role", "roles", "角色"),
    "groups": ("group", "groups", "course", "class", "组", "分组", "课程", "班级"),
    "full_name": ("full name", "full_name", "fullname", "real name", "姓名", "名字"),
    "mail": ("mail", "email", "e-mail", "address", "邮箱", "电子邮件"),
    "password": ("password", "密码", "初始密码"),
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One person of a file.

    Attributes
    ----------
    number
        Line in the file, from 1.
    exists
        There is such an account: it gets the roles and groups, nothing else of it is touched.
    problems
        Message ids with values; a line with one is left out.
    """

    number: int
    name: str = ""
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    full_name: str = ""
    mail: str = ""
    password: str = ""
    exists: bool = False
    problems: tuple[tuple[str, dict[str, Any]], ...] = field(default_factory=tuple)

    @property
    def good(self) -> bool:
        return not self.problems


def decode(raw: bytes) -> str:
    """The text of a file.

    Raises
    ------
    UserError
        413 for too much, 400 for what is neither UTF-8 nor GBK.
    """
    if len(raw) > BYTES_MOST:
        raise UserError(413, mark("At most {most} MB at once; split the file."), most=BYTES_MOST // 2**20)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "gb18030")
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise UserError(400, mark("This is no text: save the table as CSV (UTF-8) and try again."))


def read(text: str, known: Rights, accounts: Collection[str], own_role: str = "") -> list[Line]:
    """The lines of a file, each with its faults.

    Parameters
    ----------
    text
        The table, as it was uploaded or pasted.
    known
        Roles and groups that there are; both may also be written by their titles.
    accounts
        Names that are taken.
    own_role
        For lines without a role; empty = they wait for one.

    Raises
    ------
    UserError
        400 when it has no column of names, or too many lines.
    """
    rows = _rows(text)
    if not rows:
        raise UserError(400, mark("There is nothing in it. The first line says what the columns are."))
    columns = _columns(rows[0][1])
    if "name" not in columns:
        raise UserError(
            400,
            mark("No column is called “name”. Columns: name, role, groups, full name, mail, password."),
        )
    if len(rows) - 1 > LINES_MOST:
        raise UserError(400, mark("At most {most} people at once; split the file."), most=LINES_MOST)
    seen: dict[str, int] = {}
    lines = []
    for number, cells in rows[1:]:
        line = _line(number, cells, columns, known, accounts, own_role)
        if line.name in seen and line.name:
            fault = (mark("The name stands in line {line} already."), {"line": seen[line.name]})
            line = replace(line, problems=(*line.problems, fault))
        seen.setdefault(line.name, number)
        lines.append(line)
    return lines


def _rows(text: str) -> list[tuple[int, list[str]]]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    if first.lower().startswith("sep=") and len(first) == 5:
        delimiter = first[4]
        text = text.split("\n", 1)[1] if "\n" in text else ""
    else:
        delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        found = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise UserError(400, mark("The table cannot be read: {why}"), why=str(error)) from error
    return [(number, cells) for number, cells in found if any(cells)]


def _columns(heads: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for place, head in enumerate(heads):
        for key, words in HEADS.items():
            if head.casefold().strip() in words:
                found.setdefault(key, place)
    return found


def _line(
    number: int,
    cells: Sequence[str],
    columns: Mapping[str, int],
    known: Rights,
    accounts: Collection[str],
    own_role: str,
) -> Line:
    def cell(key: str) -> str:
        place = columns.get(key, len(cells))
        return cells[place] if place < len(cells) else ""

    problems: list[tuple[str, dict[str, Any]]] = []
    name = cell("name").lower()
    if not _NAME.fullmatch(name):
        problems.append(
            (
                mark("“{name}” cannot be a user name: 1 to 32 small letters, digits, . - _"),
                {"name": name[:64]},
            )
        )
    titles = {role.title.casefold(): key for key, role in known.roles.items()}
    given = []
    for word in _words(cell("roles")) or ([own_role] if own_role else []):
        role = word.casefold() if word.casefold() in known.roles else titles.get(word.casefold(), "")
        if role:
            given.append(role)
        else:
            problems.append((mark("There is no role “{role}”."), {"role": word[:64]}))
    group_titles = {group.title.casefold(): slug for slug, group in known.groups.items()}
    groups = []
    for word in _words(cell("groups")):
        slug = word if word in known.groups else group_titles.get(word.casefold(), "")
        if slug:
            groups.append(slug)
        else:
            problems.append((mark("There is no group “{group}”."), {"group": word[:64]}))
    mail = cell("mail")
    if mail and (len(mail) > 128 or not _MAIL.fullmatch(mail)):
        problems.append((mark("“{email}” does not look like a mail address."), {"email": mail[:80]}))
    password = cell("password")
    if password and not (len(password) >= 8 and len(password.encode()) <= 72):
        problems.append((mark("A password has 8 to 72 characters."), {}))
    return Line(
        number=number,
        name=name,
        roles=tuple(dict.fromkeys(given)),
        groups=tuple(dict.fromkeys(groups)),
        full_name=cell("full_name")[:255],
        mail=mail,
        password=password,
        exists=name in accounts,
        problems=tuple(problems),
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in re.split(r"[|/、，;,]", text) if word.strip()]


def results_csv(rows: Sequence[Mapping[str, Any]], passwords: Mapping[str, str]) -> str:
    """What came of an import, as a table to hand out; a leading mark lets Excel read UTF-8."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["name", "full name", "outcome", "password", "problem"])
    for row in rows:
        name = str(row.get("name", ""))
        writer.writerow(
            [
                safe(name),
                safe(str(row.get("full_name", ""))),
                row.get("outcome", ""),
                passwords.get(name, ""),
                safe(str(row.get("problem", ""))),
            ]
        )
    return "\ufeff" + out.getvalue()


def safe(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + cell if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
