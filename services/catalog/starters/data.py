"""The two data sets, made up by a few lines of arithmetic: the same bytes each time, on every machine.

Only ``random.Random.random`` is asked, which Python promises to keep; the bell curve is the sum of twelve of it.
"""

from __future__ import annotations

import math
import random
from datetime import date, timedelta

LEAVES = {
    # length, width, stalk, teeth of the edge: means in cm (the last: number)
    "birch": (6.0, 4.4, 2.4, 34.0),
    "beech": (8.2, 5.4, 1.1, 9.0),
    "hornbeam": (8.6, 4.6, 1.3, 52.0),
}
_SPREAD = (0.9, 0.6, 0.35, 6.0)
EACH = 60


def _bell(chance: random.Random) -> float:
    return sum(chance.random() for _ in range(12)) - 6.0


def weather_csv(year: int = 2025) -> bytes:
    """A year of a weather station that does not exist: day, mean temperature in °C, rain in mm, wind in m/s."""
    chance, lines = random.Random(year), ["day,temperature_c,rain_mm,wind_m_s"]  # noqa: S311
    first, drift = date(year, 1, 1), 0.0
    for number in range((date(year + 1, 1, 1) - first).days):
        drift = 0.8 * drift + 1.6 * _bell(chance)
        season = -math.cos(2 * math.pi * (number - 20) / 365)
        rain = max(0.0, 9.0 * chance.random() ** 3 - 1.2 + 0.8 * season) if chance.random() < 0.42 else 0.0
        wind = max(0.3, 3.4 - 0.9 * season + 1.1 * _bell(chance))
        day = first + timedelta(days=number)
        lines.append(f"{day},{10.5 + 9.5 * season + drift:.1f},{rain:.1f},{wind:.1f}")
    return ("\n".join(lines) + "\n").encode()


def leaves_csv() -> bytes:
    """Leaves of three kinds of trees that were never picked: four measures each, in a mixed order."""
    chance, rows = random.Random(7), []  # noqa: S311
    for kind, means in LEAVES.items():
        for _ in range(EACH):
            size = 1 + 0.08 * _bell(chance)
            values = [
                max(0.2, mean * size + spread * _bell(chance))
                for mean, spread in zip(means, _SPREAD, strict=True)
            ]
            rows.append(
                (chance.random(), f"{values[0]:.1f},{values[1]:.1f},{values[2]:.1f},{values[3]:.0f},{kind}")
            )
    head = "length_cm,width_cm,stalk_cm,teeth,kind"
    return ("\n".join([head, *(row for _, row in sorted(rows))]) + "\n").encode()
