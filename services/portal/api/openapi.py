"""The OpenAPI document: made from the models that check what arrives and shape what leaves.

One table says what each address takes and answers; a test holds it against the routes, so that neither is
there without the other.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.portal.api import (
    adapting,
    archives,
    builds,
    class_forks,
    dataset_handlers,
    disks,
    doors,
    environments,
    file_work,
    finding,
    gallery,
    image_places,
    image_uploads,
    images,
    library,
    life,
    losses,
    machine_time,
    machines,
    models,
    node,
    object_stores,
    people,
    port_shares,
    quotas,
    registries,
    release,
    renewals,
    sharing,
    site,
    ssh,
    volumes,
    workbenches,
)
from services.portal.api.operation import PAGED, Operation

PROJECT = "/projects/{owner}/{slug}"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/projects",
        summary="List one's own projects",
        query={
            "q": "Words that must all stand in name, address or description.",
            "sort": "recent, name or created.",
            "owner": "Somebody else's, with the right projects:manage.",
            **PAGED,
        },
        answers={200: models.ListOf[models.Project]},
    ),
    Operation(
        method="post",
        path="/projects",
        summary="Make a project",
        takes=models.NewProject,
        answers={201: models.Project},
    ),
    Operation(method="get", path=PROJECT, summary="Look at a project", answers={200: models.Project}),
    Operation(
        method="patch",
        path=PROJECT,
        summary="Change a project: what it is called, by what it is found, what it starts with",
        takes=models.ProjectChange,
        answers={200: models.Project},
    ),
    Operation(
        method="delete",
        path=PROJECT,
        summary="Put a project into the bin with its files, for 30 days; its machine time stays",
        answers={204: None},
    ),
    Operation(
        method="post",
        path=PROJECT + "/clusters",
        summary="Start a cluster of a project (one that is there already is success)",
        takes=models.StartCluster,
        answers={202: models.ClusterDetail, 200: models.ClusterDetail},
    ),
    *file_work.OPERATIONS,
    Operation(
        method="get",
        path="/clusters",
        summary="List clusters: one's own, everybody's with the right",
        query={"state": "open (default) or all.", "user": "Of this person only.", **PAGED},
        answers={200: models.ListOf[models.Cluster]},
    ),
    Operation(
        method="get",
        path="/clusters/{id}",
        summary="Look at a cluster, its nodes, their doors and the steps of its start",
        answers={200: models.ClusterDetail},
    ),
    Operation(
        method="delete",
        path="/clusters/{id}",
        summary="Release a cluster (anybody's with the right)",
        takes=models.Release,
        answers={204: None, 202: models.ClusterDetail},
    ),
    *doors.OPERATIONS,
    *port_shares.OPERATIONS,
    *renewals.OPERATIONS,
    *losses.OPERATIONS,
    *dataset_handlers.OPERATIONS,
    *volumes.OPERATIONS,
    *finding.OPERATIONS,
    *gallery.OPERATIONS,
    *life.OPERATIONS,
    *class_forks.OPERATIONS,
    *sharing.OPERATIONS,
    *machine_time.OPERATIONS,
    *archives.OPERATIONS,
    *quotas.OPERATIONS,
    *site.OPERATIONS,
    *machines.OPERATIONS,
    *people.OPERATIONS,
    *environments.OPERATIONS,
    *workbenches.OPERATIONS,
    *disks.OPERATIONS,
    *image_places.OPERATIONS,
    *image_uploads.OPERATIONS,
    *images.OPERATIONS,
    *adapting.OPERATIONS,
    *builds.OPERATIONS,
    *library.OPERATIONS,
    *registries.OPERATIONS,
    Operation(
        method="post",
        path="/presence",
        summary="Report that somebody is there (a node's own token)",
        takes=models.Presence,
        answers={204: None},
    ),
    *node.OPERATIONS,
    *ssh.OPERATIONS,
    *object_stores.OPERATIONS,
    *release.OPERATIONS,
    Operation(method="get", path="/openapi.json", summary="This document", answers={200: None}, public=True),
)


def document(site: str, prefix: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document.

    Parameters
    ----------
    site
        Name of the centre.
    prefix
        Of the portal, such as ``/services/portal/``.
    """
    incoming = {op.takes for op in OPERATIONS if op.takes}
    outgoing = {model for op in OPERATIONS for model in op.answers.values() if model} | {models.Problem}
    wanted: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in incoming]
    wanted += [(model, "serialization") for model in outgoing]
    refs, schema = models_json_schema(
        sorted(wanted, key=lambda item: item[0].__name__), ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Any] = {}
    for op in OPERATIONS:
        paths.setdefault(op.path, {})[op.method] = _operation(op, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{site} portal",
            "version": version("galilean"),
            "description": "Times are UTC. 1 GB = 2**30 bytes. A CPU is what the operating system counts, a "
            "hardware thread. Lists are {items, next}; errors are RFC 9457 problem documents.",
        },
        "servers": [{"url": f"{prefix}api/v1"}],
        "paths": paths,
        "components": {
            "schemas": schema.get("$defs", {}),
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "token <hub API token>",
                }
            },
        },
        "security": [{"token": []}],
    }


def _operation(op: Operation, refs: Any) -> dict[str, Any]:
    names = [part[1:-1] for part in op.path.split("/") if part.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    parameters += [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in op.query.items()
    ]
    responses: dict[str, Any] = {}
    for status, model in op.answers.items():
        answer: dict[str, Any] = {"description": op.summary}
        if model is not None:
            answer["content"] = {"application/json": {"schema": refs[(model, "serialization")]}}
        responses[str(status)] = answer
    responses["default"] = {
        "description": "What went wrong",
        "content": {"application/problem+json": {"schema": refs[(models.Problem, "serialization")]}},
    }
    out: dict[str, Any] = {"summary": op.summary, "parameters": parameters, "responses": responses}
    if op.takes is not None:
        out["requestBody"] = {
            "required": op.method == "post" and op.takes is not models.StartCluster,
            "content": {"application/json": {"schema": refs[(op.takes, "validation")]}},
        }
    if op.raw_body:
        out["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    if op.public:
        out["security"] = []
    return out
