"""``python helm/chart.py``: write what follows from ``helm/values.py``; with ``--check`` say what is not up to date."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from values import DECIDED, Values

from galilean.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "galilean"
MADE_BY = "Written by `python helm/chart.py` from helm/values.py: change it there."


# ---- values.yaml


def values_yaml() -> str:
    """The defaults, each with what it means above it."""
    lines = [f"# {MADE_BY}"]
    for name, field in Values.model_fields.items():
        lines += ["", *_entry(name, field, field.default, 0)]
    return "\n".join(lines) + "\n"


def _entry(name: str, field: FieldInfo, value: Any, depth: int) -> list[str]:
    indent = "  " * depth
    told = textwrap.wrap(field.description or "", 108 - len(indent), break_on_hyphens=False)
    lines = [f"{indent}# {line}" for line in told]
    if isinstance(value, BaseModel):
        lines.append(f"{indent}{name}:")
        for inner, inner_field in type(value).model_fields.items():
            lines += _entry(inner, inner_field, getattr(value, inner), depth + 1)
        return lines
    text = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True)
    return lines + [indent + line for line in text.splitlines()]


# ---- values.schema.json


def values_schema() -> dict[str, Any]:
    """JSON Schema of the values, ``config`` included; draft 7, which every Helm 3 reads."""
    chart = Values.model_json_schema()
    settings = Settings.model_json_schema(mode="validation")
    definitions = {**chart.pop("$defs"), **_named("config.", settings.pop("$defs"))}
    definitions["config.Settings"] = _renamed("config.", settings)
    for section, names in DECIDED.items():
        for name in names:
            definitions.get(f"config.{section}", {}).get("properties", {}).pop(name, None)
    chart["properties"]["config"] = {"$ref": "#/$defs/config.Settings"}
    # Of a chart that has this one among its parts.
    chart["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **chart, "$defs": definitions}


def _named(prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: _renamed(prefix, schema) for name, schema in definitions.items()}


def _renamed(prefix: str, schema: Any) -> Any:
    """The same schema with its references led to the prefixed names."""
    if isinstance(schema, dict):
        return {
            key: f"#/$defs/{prefix}{value.removeprefix('#/$defs/')}"
            if key == "$ref"
            else _renamed(prefix, value)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [_renamed(prefix, item) for item in schema]
    return schema


# ---- docs/reference/chart.md

INTRODUCTION = """\
# The Helm chart's values

What `helm install` and `helm upgrade` may be told; {doc}`../how-to/install-on-kubernetes` says what most centres need of
it. A value that is not here is refused. `config` is the file `galilean.yaml` ({doc}`settings`), less what the chart
decides: """

RIGHTS = """
## Rights in Kubernetes

Each part has the rights that it needs and no more; parts that are not named here have no account in Kubernetes at all.

| part | where | may |
|---|---|---|
| hub | the release's namespace | pods: list, watch, create, delete; Secrets, Services: list, create, delete; events: list (what the kubelets say of images); NetworkPolicies: list, watch, create, update, delete |
| hub, unless `config.kubernetes.network.outside` is false | the whole cluster | nodes: list (the addresses of machines) |
| hub, unless `config.kubernetes.network.outside` is false | `default` | EndpointSlices: list (the addresses of the API servers) |
| hub, with `config.kubernetes.disk_class` | the release's namespace | PersistentVolumeClaims: create, delete |
| metering | the release's namespace | pods: list |
| metering, unless `config.use.measured` is false | the whole cluster | figures of use at the kubelets (`nodes/metrics`): get |
| machines | the whole cluster | nodes: get, list, patch, delete |
| machines, unless `config.use.measured` is false | the whole cluster | figures of use at the kubelets (`nodes/metrics`): get |
| machines | the release's namespace | pods: list; evictions: create |
| machines, with `imagebuilder.enabled` | the namespaces of agents and of pull pods | pods: list |
| machines, with `machines.addMachines` | `kube-system` | Secrets: create |
| imagebuilder, with `imagebuilder.enabled` | the release's namespace | pods: list; Secrets: get |
| imagebuilder, with `imagebuilder.enabled` | the agents' namespace | pods: list |
| imagebuilder, unless `imagebuilder.distribution.enabled` is false | the namespace of its pull pods | pods, Secrets: list, create, delete |
| imagebuilder, unless `imagebuilder.distribution.enabled` is false | the whole cluster | nodes: list |

Kubernetes cannot narrow a right to *create* down to names. With `machines.addMachines` whoever takes over that service
could therefore put any new Secret into `kube-system` (it cannot read, change or delete one); without it nothing of
Galilean reaches that namespace.

Addresses of Kubernetes itself are read so that no node of a cluster reaches them under "the outside" ({doc}`../topics/isolation`);
a hub that may not read them makes no cluster that is open to the outside. Kubernetes cannot narrow the list of machines down
to their addresses. A policy is only updated where it does not say what it has to: taken away and made anew it would leave its
cluster open for a moment.

The image service gets two kinds of Secrets by their names and lists none: that of the run whose node is saved, which is called
after the run and so cannot stand in a role, and the pull Secrets (`images.pullSecrets`). In the namespace of its pull pods it lists
Secrets, too: there are only the copies that it made itself.

The namespace should hold nothing else, for the hub can list its Secrets. It should enforce Pod Security: every pod of
the chart and every node is admitted by *restricted*.

The agents that `imagebuilder.enabled` puts on the machines have a namespace of their own. They have no account in
Kubernetes, call nobody, and are called by the image service alone. On their machine they are root with one capability,
to read everybody's files (`DAC_READ_SEARCH`): they see containerd's snapshots and running containers, and write control
groups, which is how a container is held for a moment. They have no socket of the runtime.

Images are brought to machines by pods in another namespace of its own, which admits *restricted* pods alone. Such a pod
names the image and a program that it does not have, so the machine fetches the image and starts nothing of it. Nothing
can be mounted there but copies of the pull Secrets (`images.pullSecrets`); nobody reaches these pods, and they nobody.
"""


def reference_page() -> str:
    """The page of the documentation."""
    decided = [
        f"`{name}`" if section == "Settings" else f"`{section.lower()}.{name}`"
        for section, names in DECIDED.items()
        for name in names
    ]
    lines = [f"<!-- {MADE_BY} -->", "", INTRODUCTION + ", ".join(decided) + ".", RIGHTS]
    single = {
        name: field for name, field in Values.model_fields.items() if not isinstance(field.default, BaseModel)
    }
    lines += [
        "## Values",
        "",
        *_table(row for name, field in single.items() for row in _rows(name, field, field.default)),
    ]
    for name, field in Values.model_fields.items():
        if name not in single:
            lines += [
                "",
                f"### `{name}`",
                "",
                field.description or "",
                "",
                *_table(_rows(name, field, field.default)),
            ]
    return "\n".join(lines) + "\n"


def _table(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    told = [f"| `{dotted}` | {default} | {_cell(meaning)} |" for dotted, default, meaning in rows]
    return ["| value | default | meaning |", "|---|---|---|", *told]


def _rows(dotted: str, field: FieldInfo, value: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(value, BaseModel):
        for inner, inner_field in type(value).model_fields.items():
            yield from _rows(f"{dotted}.{inner}", inner_field, getattr(value, inner))
        return
    yield dotted, _default(value), field.description or ""


def _default(value: Any) -> str:
    if value in ("", None, [], {}):
        return "none" if value is None else "empty"
    return f"`{json.dumps(value) if not isinstance(value, str) else value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# ---- the command


def made() -> dict[Path, str]:
    """Every file that follows from the values, with what it should hold."""
    return {
        CHART / "values.yaml": values_yaml(),
        CHART / "values.schema.json": json.dumps(values_schema(), indent=1, ensure_ascii=False) + "\n",
        ROOT / "docs" / "reference" / "chart.md": reference_page(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a file is old")
    check = parser.parse_args().check
    old = [path for path, text in made().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in old:
        if check:
            print(f"{path.relative_to(ROOT)} is not what helm/values.py says; run: python helm/chart.py")
        else:
            path.write_text(made()[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    sys.exit(1 if check and old else 0)


if __name__ == "__main__":
    main()
