from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.release.watch import Watch

T0 = datetime(2026, 3, 2, tzinfo=UTC)


class Looks:
    def __init__(self) -> None:
        self.watch, self.wall, self.seconds = Watch(settle_seconds=75), T0, 0.0

    def look(self, after: float = 5, *, there: bool = True) -> bool:
        self.wall += timedelta(seconds=after)
        self.seconds += after
        return self.watch.look(there=there, now=self.wall, monotonic=self.seconds)

    def settle(self) -> None:
        while not self.look():
            assert self.seconds < 10_000


def test_a_new_process_believes_nobody_until_the_witnesses_could_report() -> None:
    looks = Looks()
    believed = [looks.look() for _ in range(17)]
    assert believed == [False] * 15 + [True] * 2


def test_after_a_witness_was_away_its_word_counts_only_after_a_while() -> None:
    looks = Looks()
    looks.settle()
    assert not looks.look(there=False)
    assert not looks.look(50)
    assert not looks.look(50)
    assert looks.look(30)


def test_after_a_jump_of_the_clock_presence_must_be_told_again() -> None:
    looks = Looks()
    looks.settle()
    looks.wall += timedelta(hours=1)
    assert not looks.look()
    looks.wall -= timedelta(hours=2)
    assert not looks.look()
    looks.settle()
    assert looks.look()


def test_a_process_that_slept_believes_nothing_old() -> None:
    looks = Looks()
    looks.settle()
    assert not looks.look(3600)
