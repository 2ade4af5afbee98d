"""The section ``use:`` of ``galilean.yaml``: how it is measured what nodes really use."""

from __future__ import annotations

import string

from pydantic import Field, field_validator

from galilean.settings_places import Section


class Use(Section):
    """What nodes really use, next to what was booked."""

    measured: bool = Field(default=True, description="Whether it is measured at all.")
    # A gap of two minutes ends what is measured, and after three nothing is known of the present.
    interval_seconds: int = Field(default=30, ge=5, le=60, description="How often.")
    kubelet_port: int = Field(
        default=10250, ge=1, le=65535, description="Kubernetes: where the kubelets of the machines answer."
    )
    kubelet_insecure_tls: bool = Field(
        default=False,
        description="Kubernetes: take the kubelets' certificates as they come. Needed where they signed them "
        "themselves (kubeadm without serverTLSBootstrap); whoever answers there then learns a token that may "
        "read figures of use.",
    )
    gpu_metrics_url: str = Field(
        default="",
        description="Kubernetes: where DCGM's exporter tells of GPUs, as Prometheus text; {host} is filled in "
        "with the address of each machine that carries nodes with GPUs. Empty = GPUs are not measured.",
    )

    @field_validator("gpu_metrics_url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not value:
            return value
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        if not {name for _, name, _, _ in string.Formatter().parse(value) if name is not None} <= {"host"}:
            raise ValueError("names nothing besides {host}")
        return value
