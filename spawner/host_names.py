"""Host names that stay the same for a person, for licences that are tied to one. Pure.

``{person}`` in an entry's host name stands for who runs it. What is put there is a part of a DNS label for any name
of an account, the name itself where that is plain, and never the same for two people.
"""

from __future__ import annotations

import hashlib
import re

from galilean.settings_environments import PERSON

#: A label has 63 characters: 41 of the entry, these of the person, five of the rank.
PERSON_MOST = 16
_PLAIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)


def of_person(pattern: str, person: str) -> str:
    """The host name of somebody's nodes, without their rank; empty stays empty."""
    return pattern.replace(PERSON, part_of(person))


def part_of(person: str) -> str:
    """What stands for a person. A plain name has no two hyphens together, so no hash is taken for one."""
    if len(person) <= PERSON_MOST and _PLAIN.fullmatch(person):
        return person
    digest = hashlib.sha256(person.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    readable = re.sub(r"[^a-z0-9]+", "-", person.lower())[: PERSON_MOST - 12].strip("-") or "x"
    return f"{readable}--{digest}"
