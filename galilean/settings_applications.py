"""Applications (SC-3): programs with a page or a window that nodes offer, each one YAML file.

What stands in ``applications/`` beside ``galilean.yaml``, one file for each, or below ``applications:`` in it, adds to
those that the product brings (VS Code, RStudio, TensorBoard) or takes their place. An application is a door of every node
that has its programs. Each file is checked when the settings are read, and a mistake is told with its line.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from galilean.application_rules import BadValue, check
from galilean.settings_places import Section

TEXT_MOST = 300


def _text(value: Any) -> Any:
    texts = value.values() if isinstance(value, dict) and set(value) <= {"en", "zh_CN"} and value else [value]
    if not all(isinstance(text, str) and len(text) <= TEXT_MOST for text in texts):
        raise ValueError(f"is a text of at most {TEXT_MOST} characters, or {{en: …, zh_CN: …}}")
    return value


#: One text for all languages, or one for each.
Text = Annotated[str | dict[str, str], BeforeValidator(_text)]
#: As long as a desktop of its own name may be called with `app-` before it.
NAME = r"^[a-z0-9][a-z0-9-]{0,35}$"
FIELD = r"^[a-z][a-z0-9_]{0,39}$"
#: What the command is told besides its fields.
TAKEN = ("port", "base")
FIELDS_MOST, OPTIONS_MOST = 30, 200


class ApplicationField(Section):
    """What somebody says before an application starts; the command finds it in `$APP_<NAME>`."""

    title: Text
    help: Text = ""
    type: Literal["text", "integer", "number", "choice", "switch", "directory", "file"] = Field(
        default="text", description="`directory` and `file` are paths below `~/work` and must be there."
    )
    default: str | int | float | bool | None = None
    required: bool = Field(default=False, description="Whether it may not be empty.")
    least: float | None = Field(default=None, description="Of numbers.")
    most: float | None = Field(default=None, description="Of numbers.")
    longest: int | None = Field(default=None, ge=1, le=1000, description="Characters of a text.")
    pattern: str = Field(
        default="", max_length=300, description="A regular expression that a whole text fits."
    )
    options: tuple[str, ...] = Field(default=(), max_length=OPTIONS_MOST, description="Of a choice.")
    when: dict[str, str | bool] = Field(
        default={}, description="Asked for only where earlier fields have these values."
    )

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _fits(self) -> ApplicationField:
        number = self.type in ("integer", "number")
        if (self.least is not None or self.most is not None) and not number:
            raise ValueError(f"least and most belong to numbers, not to a {self.type}")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError("least is more than most")
        if (self.pattern or self.longest) and self.type != "text":
            raise ValueError(f"pattern and longest belong to a text, not to a {self.type}")
        if bool(self.options) != (self.type == "choice"):
            raise ValueError("a choice has options, and nothing else has")
        if self.default is not None:
            try:
                check(self.model_dump(), self.default)
            except BadValue as error:
                raise ValueError(f"the default {self.default!r} does not fit: {error}") from None
        elif self.type == "choice" and self.required:
            raise ValueError("a choice that may not be empty has a default")
        return self


class Application(Section):
    """A program that nodes offer."""

    title: Text
    description: Text = ""
    icon: str = Field(default="app-indicator", pattern=r"^[a-z0-9-]{1,40}$", description="A bootstrap icon.")
    kind: Literal["web", "desktop"] = Field(
        default="web", description="`web`: answers HTTP at `$APP_PORT`; `desktop`: opens windows."
    )
    needs: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._+|-]{1,200}$")], ...] = Field(
        default=(),
        max_length=20,
        description="Programs that a node must have for it, `one|other` where one of them is enough; empty = always.",
    )
    environments: tuple[str, ...] = Field(default=(), description="Only in these; empty = in all.")
    command: str = Field(
        min_length=1,
        max_length=8000,
        description="Run by `bash -c` in `~/work`, as the person. `$APP_PORT` is the port, `$APP_BASE` the path in front.",
    )
    absolute: bool = Field(
        default=False, description="Whether the program wants the whole path, `$APP_BASE` with it."
    )
    start: str = Field(default="", max_length=200, description="Where its page begins, below its own path.")
    ready_seconds: int = Field(default=60, ge=1, le=600, description="How long it may take until it answers.")
    fields: dict[Annotated[str, Field(pattern=FIELD)], ApplicationField] = Field(
        default={}, max_length=FIELDS_MOST
    )
    enabled: bool = True

    @field_validator("command")
    @classmethod
    def _command(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("a command cannot contain a NUL character")
        return value

    @field_validator("start")
    @classmethod
    def _start(cls, value: str) -> str:
        if value.startswith("/") or "://" in value or "\\" in value or not value.isprintable():
            raise ValueError("is a path below the application's own, without a slash in front")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Application:
        if self.kind == "web" and "APP_PORT" not in self.command:
            raise ValueError("the command of a web application listens at $APP_PORT")
        if self.kind == "desktop" and (self.absolute or self.start):
            raise ValueError("absolute and start belong to web applications")
        before: set[str] = set()
        for name, field in self.fields.items():
            if name in TAKEN:
                raise ValueError(f"fields.{name}: $APP_{name.upper()} is the product's own")
            for other in field.when:
                if other not in before:
                    raise ValueError(f"fields.{name}: when names {other!r}, which is no field before it")
            before.add(name)
        return self

    def for_node(self) -> dict[str, Any]:
        """What a node is told of it."""
        return self.model_dump(mode="json", exclude={"environments", "enabled"})
