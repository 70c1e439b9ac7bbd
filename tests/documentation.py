"""Generates the tables of README.md and docs/ from the code. `make docs` writes them, and a test compares them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from service.api.http.status_codes import ROUTING_ERRORS, STATUS
from service.errors import ConvoyError
from service.exit_codes import MEANINGS
from service.model_store.manifest import Manifest, Variant
from service.model_store.repository import Repository
from service.observability.collectors import ClassCounterCollector, DurationHistogramCollector
from service.observability.metrics import Metrics, model_info, version_metrics
from service.observability.service_metrics import service_metrics
from service.settings import Settings
from tests.log_fields import log_fields_table
from tests.monitoring.alert_table import alerts_table
from tests.published_results import results_table

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def settings_table() -> str:
    rows = ["| variable and flag | default | what it does |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        rows.append(f"| `CONVOY_{name.upper()}` `{flag}` | `{field.default}` | {field.description} |")
    return "\n".join(rows)


def errors_table() -> str:
    rows = [(status, kind.code, kind.__doc__ or "", kind.hint) for kind, status in STATUS.items()]
    rows += [(status, code, message, hint) for status, (code, message, hint) in ROUTING_ERRORS.items()]
    rows.append((500, ConvoyError.code, "An internal error occurred.", ConvoyError.hint))
    lines = [
        f"| {status} | `{code}` | {' '.join(about.split())} | {hint} |" for status, code, about, hint in sorted(rows)
    ]
    return "\n".join(["| status | code | when | what to do |", "|---|---|---|---|", *lines])


def metrics_table() -> str:
    rows = ["| metric | labels | what it counts |", "|---|---|---|"]
    for metric in vars(Metrics()).values():
        if isinstance(metric, ClassCounterCollector | DurationHistogramCollector):
            family = next(metric.collect())
            rows.append(_metric_row(family.name, family.type, family._labelnames, family.documentation))
        elif hasattr(metric, "_labelnames"):
            rows.append(_metric_row(metric._name, metric._type, metric._labelnames, metric._documentation))
    service = service_metrics()
    for family in [*version_metrics({}), model_info([]), *service]:
        rows.append(_metric_row(family.name, family.type, family._labelnames, family.documentation))
    for family in Metrics().process_metrics():
        rows.append(_metric_row(family.name, family.type, (), f"{family.documentation} All workers together."))
    return "\n".join(rows)


def _metric_row(name: str, kind: str, labels: Sequence[str], about: str) -> str:
    suffix = "_total" if kind == "counter" else ""
    return f"| `{name}{suffix}` ({kind}) | {', '.join(f'`{label}`' for label in labels)} | {about} |"


def models_table() -> str:
    """Returns the table of shipped models with one row per graph. Figures and commands come from the manifests."""
    rows = ["| model | input | classes | parameters | graph | MB | test accuracy | ms per image | made by |"]
    rows.append("|---|---|---|---|---|---|---|---|---|")
    repository = Repository(ROOT / "models")
    for model in repository.models():
        manifest = repository.open(model, max(repository.versions(model))).manifest
        size = "x".join(map(str, manifest.input.shape))
        columns = f"`{model}` | {size} | {manifest.classes} | {manifest.parameters:,}"
        commands = _training_commands(manifest)
        for variant in manifest.variants:
            accuracy = "" if variant.test_accuracy is None else f"{variant.test_accuracy:.2%}"
            figures = f"{variant.bytes / 1e6:.2f} | {accuracy} | {_ms_per_image(manifest, variant)}"
            rows.append(f"| {columns} | {variant.precision} | {figures} | {commands} |")
            columns, commands = "| | | ", ""
    return "\n".join(rows)


def _ms_per_image(manifest: Manifest, variant: Variant) -> str:
    """Returns the time in batches of 32, as measured by `convoy-train quantize`, or an empty text."""
    measured = [each.speed for each in manifest.variants if each.speed is not None]
    if not measured:
        return ""
    speed = variant.speed or measured[0]
    times_us = speed.us_per_image if variant.speed else speed.float32_us_per_image
    return f"{times_us[32] / 1000:.2f}"


def published_results_table() -> str:
    repository = Repository(ROOT / "models")
    return results_table(
        [ROOT / "models" / model / str(max(repository.versions(model))) for model in repository.models()]
    )


def _training_commands(manifest: Manifest) -> str:
    provenance = manifest.provenance
    then = ["export", *("quantize" for variant in manifest.variants[1:] if variant.precision == "int8")]
    return ", then ".join(
        [f"`convoy-train run {provenance.recipe} --seed {provenance.seed}`", *map("`{}`".format, then)]
    )


def exit_codes_table() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(["| exit code | meaning |", "|---|---|", *rows])


GENERATED_TABLES: dict[str, Callable[[], str]] = {
    "models": models_table,
    "settings": settings_table,
    "errors": errors_table,
    "metrics": metrics_table,
    "exit_codes": exit_codes_table,
    "alerts": alerts_table,
    "log_fields": log_fields_table,
    "published_results": published_results_table,
}
TABLE = re.compile(r"(<!-- (\w+): generated -->\n).*?(\n<!-- /\2 -->)", re.DOTALL)


def table_names(text: str) -> list[str]:
    """Returns the names of the generated tables of a page."""
    return [match[2] for match in TABLE.finditer(text)]


def regenerated(text: str) -> str:
    """Returns the page with tables generated from the current code. Raises KeyError for an unknown table."""
    return TABLE.sub(lambda match: match[1] + GENERATED_TABLES[match[2]]() + match[3], text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(regenerated(page.read_text()))
