"""Verifies that a version on disk is unchanged and works on this machine: checksums, loading, and stored samples."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from service.errors import BrokenVersion, ModelFailed
from service.hardware import cpu_flags, usable_cores
from service.inference.engine_choice import Candidate, list_candidates
from service.inference.openvino_plugin import find_plugin
from service.inference.providers import ON_CPU
from service.inference.session import FeatureSession, Session
from service.model_store.golden_samples import TOLERANCES, GoldenSamples, read_golden_samples
from service.model_store.repository import Repository, VersionFolder

WARM_UP_SIZES = [1, 3]
BF16_TOLERANCE = 0.1
"""Maximum difference between a probability computed in bfloat16 and the stored probability."""


class GraphNotTaken(BrokenVersion):
    """The plugin cannot run every node of the graph, so onnxruntime's own engine serves it."""


class Finding(NamedTuple):
    """The result for `subject`, which is one graph or the version as a whole."""

    model: str
    version: int
    subject: str
    is_ok: bool
    text: str


def verify(repository: Repository, model: str, version: int) -> Iterator[Finding]:
    """Yields one finding per graph of the version, or only one if the manifest, labels or samples are wrong."""
    try:
        folder = repository.open(model, version)
        samples = _read_samples(folder)
    except BrokenVersion as error:
        yield Finding(model, version, "version", False, error.full_message)
        return
    for candidate in _candidates(folder):
        subject = candidate.precision if candidate.engine == "cpu" else candidate.name
        try:
            yield Finding(model, version, subject, True, _verify_graph(folder, candidate, samples))
        except GraphNotTaken as error:
            yield Finding(model, version, subject, True, f"is served by onnxruntime's own engine: {error.full_message}")
        except (BrokenVersion, ModelFailed) as error:
            yield Finding(model, version, subject, False, error.full_message)
    for name in folder.manifest.extra_graphs:
        try:
            yield Finding(model, version, name, True, _verify_extra_graph(folder, name))
        except (BrokenVersion, ModelFailed) as error:
            yield Finding(model, version, name, False, error.full_message)


def _candidates(folder: VersionFolder) -> list[Candidate]:
    """Returns every graph on onnxruntime's own engine, and the other candidates of this machine."""
    candidates = [Candidate(variant, ON_CPU) for variant in folder.manifest.variants]
    engines = ["cpu"] if find_plugin().device is None else ["cpu", "openvino"]
    others = list_candidates(folder.manifest, "auto", engines, cpu_flags())
    return list({candidate.name: candidate for candidate in [*candidates, *others]}.values())


def _verify_extra_graph(folder: VersionFolder, name: str) -> str:
    path, model_input = folder.extra_graph_path(name), folder.manifest.input
    if path is not None:
        FeatureSession(path, model_input).run(np.zeros((1, *model_input.shape), np.uint8))
    return "sha256 matches, loads and runs"


def _read_samples(folder: VersionFolder) -> GoldenSamples | None:
    path = folder.samples_path()
    return None if path is None else read_golden_samples(path, folder.manifest.input, folder.manifest.classes)


def _verify_graph(folder: VersionFolder, candidate: Candidate, samples: GoldenSamples | None) -> str:
    """Returns the report for a valid graph. Raises BrokenVersion or ModelFailed for an invalid one."""
    manifest, variant = folder.manifest, candidate.variant
    path = folder.graph_path(variant)
    try:
        session = Session(path, manifest.input, manifest.classes, usable_cores(), candidate.placement)
    except BrokenVersion as error:
        if candidate.placement.is_on_openvino:
            raise GraphNotTaken(error.message, error.hint) from error
        raise
    session.warm_up(WARM_UP_SIZES)
    expected = None if samples is None else samples.probabilities.get(variant.precision)
    if samples is None or expected is None:
        return "sha256 matches, loads and runs; there are no stored samples to compare with"
    difference = float(np.abs(session.run(samples.images) - expected).max())
    tolerance = max(TOLERANCES[variant.precision], BF16_TOLERANCE if candidate.hint == "bf16" else 0.0)
    if not difference <= tolerance:
        raise BrokenVersion(
            f"{variant.file} does not return the same results as when it was published: a probability differs by "
            f"{difference:.2g} over {len(expected)} samples ({tolerance:g} is allowed)."
        )
    outputs = f"reproduces the published outputs of {len(expected)} samples (to {difference:.1g})"
    return f"sha256 matches, loads and runs, {outputs}"
