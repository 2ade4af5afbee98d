"""The mark of a restore that was broken off: where it stands, an installation is neither the old nor the new one."""

from __future__ import annotations

from pathlib import Path

from galilean.errors import UserError, mark

NAME = "restore-not-finished"
ASIDE = "replaced"


def is_half_restored(state: Path) -> bool:
    """Whether a restore was broken off here."""
    return (state / NAME).exists()


def refuse_half_restored(state: Path) -> None:
    """Whoever starts or copies an installation asks this first.

    Raises
    ------
    UserError
        409, saying what to do.
    """
    if is_half_restored(state):
        raise UserError(
            409,
            mark(
                "A restore was broken off here, so {state} is half of one installation and half of another. "
                "Restore again; what was there before lies in {aside}."
            ),
            state=str(state),
            aside=str(state / ASIDE),
        )
