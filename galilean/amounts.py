"""Amounts as people write them and as we keep them.

Kept: memory and storage in bytes, CPU in milli-cores (1000 = one hardware thread, what the operating
system counts, CG-47). 1 GB is 2**30 bytes everywhere in the product (design §7), as it is for the hub's
own ``mem_limit`` strings.
"""

from __future__ import annotations

import math
import re
import string
from decimal import Decimal
from typing import Any

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
_UNITS = {"": 1, "B": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
# At most so many digits: a million of them would keep whoever reads them (the hub) busy for half a minute.
_BYTES = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([BKMGT]?)(?:I?B)?\s*", re.IGNORECASE | re.ASCII)
_CPUS_MOST = 10**9
#: Of Kubernetes' own quantities.
_SUFFIXES = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
}  # fmt: skip


def parse_bytes(value: Any) -> int:
    """Bytes from ``"8G"``, ``"512 MiB"``, or a whole number of bytes.

    Raises
    ------
    ValueError
        For anything else: booleans, negative numbers, NaN, other units.
    """
    if isinstance(value, bool):
        raise ValueError("not an amount of bytes")
    if isinstance(value, int):
        if value < 0:
            raise ValueError("negative")
        return value
    if isinstance(value, float):
        if not math.isfinite(value) or value < 0 or value != int(value):
            raise ValueError("not a whole number of bytes")
        return int(value)
    if isinstance(value, str):
        found = _BYTES.fullmatch(value)
        if found:
            return int(Decimal(found[1]) * _UNITS[found[2].upper()])
    raise ValueError("not an amount of bytes")


def parse_millicores(value: Any) -> int:
    """Milli-cores from a number of CPUs (``2``, ``0.5``).

    Raises
    ------
    ValueError
        For text, booleans, negative, not finite, more than 10⁹, or finer than a thousandth.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number of CPUs")
    if not 0 <= value <= _CPUS_MOST:  # NaN neither
        raise ValueError("not a number of CPUs")
    millicores = round(value * 1000)
    if abs(millicores - value * 1000) > 1e-6:
        raise ValueError("finer than a thousandth of a CPU")
    return millicores


def quantity(text: str) -> Decimal:
    """A number as Kubernetes writes it: ``3920m``, ``16Gi``, ``129e6``.

    Raises
    ------
    ValueError
        For anything else.
    """
    number = text.rstrip(string.ascii_letters)
    suffix = text[len(number) :]
    if suffix in ("e", "E") or suffix not in _SUFFIXES:
        raise ValueError(f"not a quantity: {text!r}")
    try:
        return Decimal(number) * _SUFFIXES[suffix]
    except ArithmeticError:
        raise ValueError(f"not a quantity: {text!r}") from None


def gigabytes(size_bytes: int) -> float:
    """Bytes as GB (2**30)."""
    return size_bytes / GIB


def plain_number(value: float) -> str:
    """``2`` for 2.0, ``0.5`` for 0.5: no decimals that say nothing."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def format_bytes(size_bytes: int) -> str:
    """``41.3 GB``, ``84.0 KB``: one decimal, a no-break space before the unit."""
    size = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            return f"{int(size)}\u00a0B" if unit == "B" else f"{size:.1f}\u00a0{unit}"
        size /= 1024
    return f"{size:.1f}\u00a0TB"


def format_apart(one_bytes: int, other_bytes: int) -> tuple[str, str]:
    """Two sizes that a sentence compares, with so many digits that they do not read the same.

    ``4.9 KB`` and ``4.9 KB`` say nothing; ``4.94 KB`` and ``4.90 KB`` do, and where three decimals do not, bytes do.
    """
    first, second = format_bytes(one_bytes), format_bytes(other_bytes)
    if first != second or one_bytes == other_bytes:
        return first, second
    unit = first.partition("\u00a0")[2]
    scale = {"KB": KIB, "MB": MIB, "GB": GIB}.get(unit, TIB)
    for decimals in (2, 3):
        first, second = (f"{size / scale:.{decimals}f}\u00a0{unit}" for size in (one_bytes, other_bytes))
        if first != second:
            return first, second
    return f"{one_bytes:,}\u00a0B", f"{other_bytes:,}\u00a0B"
