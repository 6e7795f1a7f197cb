"""Every metric, from the registry of a server."""

from __future__ import annotations

from typing import Final

from prometheus_client.metrics import MetricWrapperBase

from docs.generate.markdown import code, table
from heartlane.server.metrics import Metrics

_SUFFIXES: Final = {"counter": "_total"}


def reference() -> str:
    """A table of all metrics, by the names that are scraped."""
    rows = []
    for metric in families():
        (family,) = metric.describe()
        name = family.name + _SUFFIXES.get(family.type, "")
        rows.append([code(name), family.type, _labels(metric), family.documentation])
    return table(["metric", "type", "labels", "meaning"], rows)


def families() -> list[MetricWrapperBase]:
    """Every metric of a server."""
    return [metric for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase)]


def _labels(metric: MetricWrapperBase) -> str:
    names = getattr(metric, "_labelnames", ())
    if names:
        return ", ".join(map(code, names))
    (family,) = metric.collect()
    bounds = [sample.labels["le"] for sample in family.samples if "le" in sample.labels]
    return f"`le`: {', '.join(bounds)}" if bounds else "none"
