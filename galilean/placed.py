"""YAML with the places of its values, so that what is wrong in a file is said with its line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from galilean import settings as of_settings
from galilean.settings import SettingsError


class Placed:
    """The text of a YAML file, read.

    Parameters
    ----------
    source
        The text.
    name
        What the file is called in messages.

    Raises
    ------
    SettingsError
        When it is not YAML, has a key twice, or is no set of sections.
    """

    def __init__(self, source: str, name: str) -> None:
        self.name = name
        try:
            self._node = yaml.compose(source, Loader=yaml.SafeLoader)
            data = yaml.safe_load(source)
        except (yaml.YAMLError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{name}:{mark.line + 1}" if mark else name
            raise SettingsError([f"{where}: not YAML: {getattr(error, 'problem', None) or error}"]) from error
        problems = list(of_settings.repeated_keys(self._node, name))
        if problems:
            raise SettingsError(problems)
        if data is not None and not isinstance(data, dict):
            raise SettingsError([f"{name}:1: the file must be a set of sections"])
        self.data: dict[str, Any] = data or {}

    def problem(self, path: Sequence[object], message: str) -> str:
        """A line that says where something is wrong, and what."""
        return of_settings.place_of(self._node, self.name, [str(part) for part in path]) + message
