"""Reference pages that are read from the code itself, so that they cannot say something else.

``{galilean-settings}`` prints the schema of ``galilean.yaml``, ``{galilean-commands}`` the command line,
``{galilean-api}`` the REST API, ``{galilean-metrics}`` the metrics. Each makes Markdown, which MyST reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parent.parent.parent


def _escape(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _code(text: object) -> str:
    return f"`{str(text).replace('|', chr(92) + '|')}`" if str(text) != "" else ""


# ---- galilean.yaml


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[1] + " (see there)"
    if "enum" in schema:
        return "one of " + ", ".join(_code(value) for value in schema["enum"])
    if "const" in schema:
        return _code(schema["const"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(part) for part in schema["anyOf"]))
    kind = schema.get("type", "any value")
    if kind == "array":
        return "list of " + _type(schema.get("items", {}))
    if kind == "object":
        inside = schema.get("additionalProperties")
        return (
            "set of named " + _type(inside) if isinstance(inside, dict) and inside else "set of named values"
        )
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(str(kind), str(kind))


def _default(model: type[Any], name: str) -> str:
    from pydantic import BaseModel
    from pydantic_core import PydanticUndefined

    field = model.model_fields[name]
    if field.is_required():
        return "must be said"
    if field.default_factory is not None:
        return "see below"
    value = field.default
    if isinstance(value, BaseModel) or value is PydanticUndefined:
        return "see below"
    if isinstance(value, tuple):
        return ", ".join(_code(item) for item in value) or "none"
    if isinstance(value, bool):
        return _code(str(value).lower())
    return _code(value) if value != "" else "empty"


def _unit(annotation: object) -> str:
    text = repr(annotation)
    if "parse_bytes" in text:
        return "amount such as `8G`"
    if "parse_millicores" in text:
        return "number of CPUs"
    return ""


def settings_markdown() -> str:
    """A heading and a table for each section of the file."""
    from pydantic import BaseModel

    from galilean import settings

    schema = settings.json_schema()
    sections: dict[str, dict[str, Any]] = {"Settings": schema, **schema["$defs"]}
    lines: list[str] = []
    for title, section in sections.items():
        model: type[BaseModel] = getattr(settings, title)
        lines += ["", f"## {title}", "", _escape((model.__doc__ or "").strip()), ""]
        lines += ["| setting | takes | default | meaning |", "|---|---|---|---|"]
        for name, field in section.get("properties", {}).items():
            info = model.model_fields[name]
            amount = _unit((*info.metadata, info.annotation))
            default = _default(model, name)
            if "G" in amount and re.fullmatch(r"`\d+`", default):
                default = _code(f"{int(default.strip('`')) / 2**30:g}G")
            lines.append(
                f"| `{name}` | {amount or _type(field)} | {default} | {_escape(field.get('description', ''))} |"
            )
    return "\n".join(lines)


# ---- the command line


def commands_markdown() -> str:
    """Each command with its options, as ``--help`` says them."""
    import typer

    from galilean.cli import build_app

    lines: list[str] = []

    def walk(command: Any, words: list[str]) -> None:
        children = getattr(command, "commands", {})
        if not children:
            lines.extend(["", f"## `{' '.join(words)}`", "", _escape(command.help or ""), ""])
            usage = []
            rows = []
            for parameter in command.params:
                if getattr(parameter, "hidden", False):
                    continue
                is_argument = parameter.param_type_name == "argument"
                spelled = (
                    (parameter.metavar or parameter.name).upper()
                    if is_argument
                    else ", ".join(parameter.opts)
                )
                if is_argument:
                    usage.append(spelled if parameter.required else f"[{spelled}]")
                if spelled == "--help":
                    continue
                default = "" if parameter.required else parameter.default
                shown = "" if default in (None, False, ()) or callable(default) else _code(default)
                rows.append(f"| `{spelled}` | {_escape(getattr(parameter, 'help', '') or '')} | {shown} |")
            if rows:
                lines.extend(["| argument | meaning | default |", "|---|---|---|", *rows])
        for name, child in children.items():
            if not child.hidden:
                walk(child, [*words, name])

    walk(typer.main.get_command(build_app()), ["galilean"])
    return "\n".join(lines)


# ---- the REST API


def api_markdown() -> str:
    """Each operation of the portal's OpenAPI document."""
    from services.portal.api.openapi import document

    spec: dict[str, Any] = document("Galilean", "/services/portal/")
    lines: list[str] = []
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            if method not in ("get", "post", "put", "patch", "delete", "head"):
                continue
            lines += ["", f"## `{method.upper()} {path}`", "", _escape(operation.get("summary", ""))]
            if text := operation.get("description"):
                lines += ["", _escape(text)]
            parameters = [p for p in operation.get("parameters", ()) if "name" in p]
            if parameters:
                lines += ["", "| parameter | in | takes | meaning |", "|---|---|---|---|"]
                for parameter in parameters:
                    lines.append(
                        f"| `{parameter['name']}` | {parameter['in']} | {_type(parameter.get('schema', {}))} "
                        f"| {_escape(parameter.get('description', ''))} |"
                    )
            answers = ", ".join(
                f"{status} {_escape(answer.get('description', ''))}".strip()
                for status, answer in operation.get("responses", {}).items()
            )
            body = (
                operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            )
            if body:
                lines += ["", f"Body: {_type(body)}."]
            lines += ["", f"Answers: {answers}." if answers else ""]
    for name, schema in spec.get("components", {}).get("schemas", {}).items():
        lines += ["", f"## {name}", "", _escape(schema.get("description", ""))]
        if schema.get("properties"):
            lines += ["", "| field | takes | meaning |", "|---|---|---|"]
            for field, inner in schema["properties"].items():
                lines.append(f"| `{field}` | {_type(inner)} | {_escape(inner.get('description', ''))} |")
    return "\n".join(lines)


# ---- metrics

_METRIC = re.compile(
    r"\b(Counter|Gauge|Histogram|Summary)\(\s*(?P<name>\"galilean_[a-z_]+\")\s*,\s*(?P<help>(?:\"(?:[^\"\\]|\\.)*\"\s*)+)"
)


def _metrics() -> Iterator[tuple[str, str, str, str]]:
    for room in ("galilean", "spawner", "extensions", "services", "hub_config"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for found in _METRIC.finditer(path.read_text(encoding="utf-8")):
                text = "".join(
                    json.loads(part) for part in re.findall(r"\"(?:[^\"\\]|\\.)*\"", found["help"])
                )
                where = str(path.parent.relative_to(ROOT))
                yield json.loads(found["name"]), found[1].lower(), text, where


def metrics_markdown() -> str:
    """One table of what is counted, and in which room."""
    rows = sorted(set(_metrics()))
    lines = ["| metric | kind | meaning | room |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {_escape(text)} | `{where}` |" for name, kind, text, where in rows]
    return "\n".join(lines)


def _directive(make: Callable[[], str]) -> type[SphinxDirective]:
    class FromSource(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            return self.parse_text_to_nodes(make(), allow_section_headings=True)

    return FromSource


def words_markdown() -> str:
    """What pages mean by their words."""
    from galilean import glossary

    return glossary.page("en")


def setup(app: Sphinx) -> dict[str, bool]:
    for name, make in (
        ("settings", settings_markdown),
        ("commands", commands_markdown),
        ("api", api_markdown),
        ("metrics", metrics_markdown),
        ("words", words_markdown),
    ):
        app.add_directive(f"galilean-{name}", _directive(make))
    return {"parallel_read_safe": True}
