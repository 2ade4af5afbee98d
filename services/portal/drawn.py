"""Covers that are drawn where an author gave none, so that the gallery never looks empty.

Each field has a picture of its own; a few numbers that come from the thing's id make it differ from its
neighbours. Nothing that anybody wrote is in it. The same name is always the same picture, so browsers keep it.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable
from hashlib import blake2s

from services.catalog.covers import HEIGHT, WIDTH

KINDS = 12
NAME = re.compile(r"([a-z]{1,20})-(\d{1,2})\.svg", re.ASCII)


def name_of(field: str, item_id: str) -> str:
    """The name of the cover of a project or data set without an image."""
    number = int.from_bytes(blake2s(item_id.encode(), digest_size=2).digest(), "big") % KINDS
    return f"{field if field in _DRAWN else 'none'}-{number}.svg"


def draw(name: str) -> str | None:
    """The picture of this name; ``None`` when there is none."""
    found = NAME.fullmatch(name)
    if not found or found[1] not in _DRAWN or int(found[2]) >= KINDS:
        return None
    number = int(found[2])
    chance = random.Random(f"{found[1]}{number}")  # noqa: S311 - a picture, no secret
    ground, inks = _COLOURS[found[1]][number % len(_COLOURS[found[1]])]
    body = _DRAWN[found[1]](chance, inks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{ground}"/>{body}</svg>'
    )


Inks = tuple[str, ...]

#: Ground and inks of each field, two kinds of each.
_COLOURS: dict[str, list[tuple[str, Inks]]] = {
    "ai": [("#e4f3ec", ("#0f7a55", "#7cc9aa")), ("#131a33", ("#8ea2ff", "#f2e9c9"))],
    "robotics": [("#fbe9ea", ("#b3203a", "#e58a9b")), ("#fdf0e3", ("#b85c12", "#e9b27c"))],
    "physics": [("#e8ecfd", ("#2c46c8", "#8b9df0")), ("#f7f0df", ("#8a6a1c", "#d8b45c"))],
    "life": [("#f3e9fb", ("#7a2ba3", "#c79ae2")), ("#e6f5ea", ("#1f7a3d", "#8fd0a4"))],
    "aerospace": [("#e5f5ee", ("#0f7a4d", "#86c9a9")), ("#e6f1fa", ("#0f5f96", "#86b9dd"))],
    "semiconductors": [("#10241f", ("#43c59e", "#d8b45c")), ("#eef0f4", ("#3b4a66", "#9aa7bf"))],
    "petroleum": [("#fdf0e3", ("#c05a1c", "#e8a878")), ("#22262b", ("#e7a33c", "#f0c98a"))],
    "cae": [("#fdebe3", ("#d05a28", "#eda98a")), ("#e6f3fa", ("#0e6392", "#79b4d6"))],
    "none": [("#e9edfb", ("#3049c9", "#b3c0f3")), ("#eef1f4", ("#566377", "#c3ccd8"))],
}


def _line(points: list[tuple[float, float]], ink: str, width: float = 1.4, fill: str = "none") -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="{path}" fill="{fill}" stroke="{ink}" stroke-width="{width}" stroke-linejoin="round"/>'


def _dot(x: float, y: float, r: float, ink: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" fill="{ink}"/>'


def _ai(chance: random.Random, inks: Inks) -> str:
    layers = [
        [(60 + 54 * i, 78 + 26 * (j - (n - 1) / 2)) for j in range(n)] for i, n in enumerate(_layers(chance))
    ]
    out = [
        _line([a, b], inks[1], 0.7)
        for here, after in itertools.pairwise(layers)
        for a in here
        for b in after
        if chance.random() < 0.8
    ]
    out += [_dot(x, y, 5, inks[chance.random() < 0.35]) for layer in layers for x, y in layer]
    return "".join(out)


def _layers(chance: random.Random) -> list[int]:
    return [chance.randint(3, 5) for _ in range(4)]


def _robotics(chance: random.Random, inks: Inks) -> str:
    x, y, turn = 96.0, 128.0, -1.25 + chance.uniform(-0.25, 0.25)
    out = [f'<rect x="64" y="126" width="64" height="7" rx="3" fill="{inks[0]}"/>']
    joints = [(x, y)]
    for length in (46, 50, 34):
        x, y = x + length * math.cos(turn), y + length * math.sin(turn)
        turn += chance.uniform(0.4, 0.85)
        joints.append((x, y))
    out.append(_line(joints, inks[0], 8))
    out += [_dot(a, b, 7, inks[1]) for a, b in joints[:-1]]
    out += [_dot(x + 9 * i, y + 7 * i - 18 + chance.uniform(-3, 3), 2, inks[1]) for i in range(1, 7)]
    return "".join(out)


def _physics(chance: random.Random, inks: Inks) -> str:
    shift = chance.uniform(8, 18)
    spots = [(70 + 34 * i, 40 + 34 * j) for i in range(5) for j in range(3)]
    out = [_line([(x, y), (x + shift, y - shift)], inks[1], 1) for x, y in spots]
    for i in range(4):
        out += [
            _line([(70 + 34 * i, 40 + 34 * j), (104 + 34 * i, 40 + 34 * j)], inks[1], 1) for j in range(3)
        ]
    for j in range(2):
        out += [_line([(70 + 34 * i, 40 + 34 * j), (70 + 34 * i, 74 + 34 * j)], inks[1], 1) for i in range(5)]
    out += [_dot(x + shift, y - shift, 3, inks[1]) for x, y in spots]
    out += [_dot(x, y, chance.uniform(5, 7), inks[chance.random() < 0.4]) for x, y in spots]
    return "".join(out)


def _life(chance: random.Random, inks: Inks) -> str:
    phase, out = chance.uniform(0, 6), []
    pairs = [(28 + 8 * i, math.sin(phase + i * 0.36)) for i in range(29)]
    out += [_line([(x, 78 + 36 * s), (x, 78 - 36 * s)], inks[1], 1.2) for x, s in pairs[::2]]
    out += [_dot(x, 78 - 36 * s, 4, inks[1]) for x, s in pairs]
    out += [_dot(x, 78 + 36 * s, 4.6, inks[0]) for x, s in pairs]
    return "".join(out)


def _stream(chance: random.Random, inks: Inks, wing: str, width: float, height: float) -> str:
    out = []
    for j in range(15):
        y0, points = 10 + 10 * j, []
        for i in range(57):
            x = 5.0 * i
            away = math.exp(-(((x - 132) / width) ** 2)) * height * math.exp(-abs(y0 - 78) / 32)
            wake = (
                5 * math.sin(x / 11 + j) * (x > 170) * math.exp(-abs(y0 - 78) / 22) * chance.uniform(0.9, 1)
            )
            points.append((x, y0 + math.copysign(away, y0 - 78) + wake))
        out.append(_line(points, inks[j % 2], 1.2))
    return "".join(out) + wing


def _aerospace(chance: random.Random, inks: Inks) -> str:
    thick = chance.uniform(15, 24)
    wing = f'<path d="M78 80C98 {80 - thick * 1.3:.0f} 158 {80 - thick:.0f} 206 86C160 90 100 96 78 80Z" fill="{inks[0]}"/>'
    return _stream(chance, inks, wing, 58, 20)


def _semiconductors(chance: random.Random, inks: Inks) -> str:
    out = [
        f'<rect x="104" y="44" width="72" height="68" rx="6" fill="none" stroke="{inks[0]}" stroke-width="3"/>'
    ]
    for i in range(6):
        x, y = 112 + 11.2 * i, 50 + 11.2 * i
        reach = [chance.uniform(14, 38) for _ in range(4)]
        bend = chance.choice((-12, 0, 12))
        out.append(_line([(x, 44), (x, 44 - reach[0] / 2), (x + bend, 44 - reach[0])], inks[0], 1.6))
        out.append(_line([(x, 112), (x, 112 + reach[1])], inks[0], 1.6))
        out.append(_line([(104, y), (104 - reach[2], y), (86 - reach[2], y + bend)], inks[0], 1.6))
        out.append(_line([(176, y), (176 + reach[3], y), (194 + reach[3], y + bend)], inks[0], 1.6))
        out += [_dot(86 - reach[2], y + bend, 2.6, inks[1]), _dot(194 + reach[3], y + bend, 2.6, inks[1])]
        out += [_dot(116 + 12 * i, 54 + 12 * j, 2, inks[chance.random() < 0.5]) for j in range(5) if i < 5]
    return "".join(out)


def _petroleum(chance: random.Random, inks: Inks) -> str:
    out, middle = [], [chance.uniform(40, 120) for _ in range(3)]
    for i in range(22):
        x0, points = 14 + 12 * i, []
        for k in range(79):
            y = 2.0 * k
            loud = sum(math.exp(-(((y - m - 0.7 * i) / 9) ** 2)) for m in middle)
            points.append((x0 + 8 * loud * math.sin(y / 2.6 + i / 3) + chance.uniform(-0.7, 0.7), y))
        out.append(_line(points, inks[0], 1.1))
    return "".join(out)


def _cae(chance: random.Random, inks: Inks) -> str:
    spots = [(chance.uniform(50, 230), chance.uniform(30, 120), chance.uniform(28, 52)) for _ in range(2)]
    out = []
    for i in range(14):
        for j in range(8):
            x, y = 20 * i, 20 * j
            heat = min(1, sum(math.exp(-(((x - a) ** 2 + (y - b) ** 2) / r**2)) for a, b, r in spots) + 0.06)
            out.append(
                f'<rect x="{x}" y="{y}" width="20" height="20" fill="{inks[0]}" opacity="{heat:.2f}"/>'
            )
    return "".join(out)


def _none(chance: random.Random, inks: Inks) -> str:
    out = []
    for i in range(12):
        height = chance.uniform(18, 96)
        ink = inks[chance.random() < 0.65]
        out.append(
            f'<rect x="{42 + 17 * i}" y="{128 - height:.0f}" width="10" height="{height:.0f}" rx="2" fill="{ink}"/>'
        )
    return "".join(out)


_DRAWN: dict[str, Callable[[random.Random, Inks], str]] = {
    "ai": _ai,
    "robotics": _robotics,
    "physics": _physics,
    "life": _life,
    "aerospace": _aerospace,
    "semiconductors": _semiconductors,
    "petroleum": _petroleum,
    "cae": _cae,
    "none": _none,
}
