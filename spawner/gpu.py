"""What DCGM's exporter says of GPU cards, as Prometheus text: pure.

Each card is one sample of each figure, with the pod it is given to among its labels; a card that nobody has
carries none. Behind a Prometheus server that federates, those labels are called ``exported_…``.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from spawner.use import GpuUse

UTILISATION = "DCGM_FI_DEV_GPU_UTIL"  # percent
#: Where profiling is on: the part of the card that computed, 0 … 1; the better figure, also of a share of a card.
ACTIVE = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
MEMORY_USED = "DCGM_FI_DEV_FB_USED"  # MiB

Pod = tuple[str, str]
_WANTED = frozenset({UTILISATION, ACTIVE, MEMORY_USED})


def gpus_of(text: str) -> dict[Pod, GpuUse]:
    """The cards of each pod, by (namespace, pod).

    Raises
    ------
    ValueError
        When it is no Prometheus text.
    """
    figures: dict[tuple[Pod, str], dict[str, float]] = {}
    lines = [line for line in text.splitlines() if line.startswith("DCGM_FI_")]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            pod = _pod(sample.labels)
            if sample.name not in _WANTED or pod is None or not sample.value >= 0:
                continue
            card = f"{sample.labels.get('UUID', '')} {sample.labels.get('GPU_I_ID', '')}"
            figures.setdefault((pod, card), {})[sample.name] = sample.value
    found: dict[Pod, list[tuple[float, float]]] = {}
    for (pod, _), values in figures.items():
        permille = values.get(ACTIVE, 0) * 1000 if ACTIVE in values else values.get(UTILISATION, 0) * 10
        found.setdefault(pod, []).append((min(permille, 1000), values.get(MEMORY_USED, 0)))
    return {
        pod: GpuUse(
            cards=len(cards),
            permille=round(sum(permille for permille, _ in cards)),
            memory_bytes=int(sum(mebibytes for _, mebibytes in cards) * 2**20),
        )
        for pod, cards in found.items()
    }


def _pod(labels: Mapping[str, str]) -> Pod | None:
    name = labels.get("exported_pod") or labels.get("pod")
    namespace = labels.get("exported_namespace") or labels.get("namespace")
    return (namespace, name) if name and namespace else None
