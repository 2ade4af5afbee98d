"""Fields and tags: by what projects and data sets are found besides their words.

The fields are few and the same for everybody, so that each finds a place on one line of chips; tags are
anybody's. Tables and addresses have the short name; what people read is translated.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from galilean.errors import UserError, mark

#: Short name → what people call it, in the order of the chips.
FIELDS: dict[str, str] = {
    "ai": mark("AI and big data"),
    "robotics": mark("Robotics"),
    "physics": mark("Chemistry and physics"),
    "life": mark("Life science"),
    "aerospace": mark("Aerospace"),
    "semiconductors": mark("Semiconductors"),
    "petroleum": mark("Petroleum and parallel"),
    "cae": mark("CAE"),
}
TAGS_MOST, TAG_LENGTH = 10, 40


def check_field(field: str) -> str:
    """``field`` when there is such a one; empty stays empty (= none).

    Raises
    ------
    UserError
        400, naming those there are.
    """
    if field and field not in FIELDS:
        raise UserError(
            400,
            mark("There is no field “{field}”. Choose one of: {known}."),
            field=field[:60],
            known=", ".join(FIELDS),
        )
    return field


def clean_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Tags as they are kept: small letters, no two alike, in the order given.

    Raises
    ------
    UserError
        400 for too many, or one that is too long.
    """
    found = dict.fromkeys(
        " ".join(unicodedata.normalize("NFKC", tag).casefold().replace(",", " ").split()) for tag in tags
    )
    found.pop("", None)
    bad = next((tag for tag in found if len(tag) > TAG_LENGTH or not tag.isprintable()), None)
    if bad is not None or len(found) > TAGS_MOST:
        raise UserError(
            400,
            mark("At most {most} tags fit, of at most {length} characters each."),
            most=TAGS_MOST,
            length=TAG_LENGTH,
        )
    return tuple(found)
