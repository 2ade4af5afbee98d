"""Whether a policy that is there says what it has to, whatever somebody did to it since.

The API server fills in what a policy leaves out and drops what is empty, so that the same is written in more than one
way. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Empty, they say the same as left out. An empty selector does not: it selects everything.
_MAY_BE_LEFT_OUT = ("matchLabels", "matchExpressions")


def says(spec: Any) -> Any:
    """A policy's ``spec``, written in one way."""
    if isinstance(spec, Mapping):
        said = {
            key: says(value) for key, value in spec.items() if value is not None and value not in ([], ())
        }
        if "port" in said or "protocol" in said:
            said.setdefault("protocol", "TCP")
        return {key: value for key, value in said.items() if value or key not in _MAY_BE_LEFT_OUT}
    if isinstance(spec, list | tuple):
        return [says(item) for item in spec]
    return spec


def has_marks(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a policy has the labels, annotations and owner that it has to, besides others' own."""
    has, asked = there["metadata"], wanted["metadata"]
    owners = {owner.get("uid") for owner in has.get("ownerReferences") or ()}
    return (
        all(asked[kind].items() <= (has.get(kind) or {}).items() for kind in ("labels", "annotations"))
        and {owner["uid"] for owner in asked["ownerReferences"]} <= owners
    )


def in_place_of(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be said in the place of exactly this version; others' own labels and annotations stay."""
    has, asked = there["metadata"], wanted["metadata"]
    metadata = {
        **asked,
        "resourceVersion": has["resourceVersion"],
        **{kind: {**(has.get(kind) or {}), **asked[kind]} for kind in ("labels", "annotations")},
    }
    return {**wanted, "metadata": metadata}
