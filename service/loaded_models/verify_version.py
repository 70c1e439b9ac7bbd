"""Verifies that a version on disk is what was published and works here: checksums, loading, and stored samples."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from service.errors import BrokenVersion, ModelFailed
from service.hardware import usable_cores
from service.inference.session import FeatureSession, Session
from service.model_store.golden_samples import TOLERANCES, GoldenSamples, read_golden_samples
from service.model_store.manifest import Variant
from service.model_store.repository import Repository, VersionFolder

WARM_UP_SIZES = [1, 3]


class Finding(NamedTuple):
    """The result for one graph, or for the version as a whole. `subject` names which."""

    model: str
    version: int
    subject: str
    is_ok: bool
    text: str


def verify(repository: Repository, model: str, version: int) -> Iterator[Finding]:
    """One finding for each graph of the version; a single one where manifest, labels or samples are wrong."""
    try:
        folder = repository.open(model, version)
        samples = _read_samples(folder)
    except BrokenVersion as error:
        yield Finding(model, version, "version", False, error.full_message)
        return
    for variant in folder.manifest.variants:
        try:
            yield Finding(model, version, variant.precision, True, _verify_graph(folder, variant, samples))
        except (BrokenVersion, ModelFailed) as error:
            yield Finding(model, version, variant.precision, False, error.full_message)
    for name in folder.manifest.extra_graphs:
        try:
            yield Finding(model, version, name, True, _verify_extra_graph(folder, name))
        except (BrokenVersion, ModelFailed) as error:
            yield Finding(model, version, name, False, error.full_message)


def _verify_extra_graph(folder: VersionFolder, name: str) -> str:
    path, model_input = folder.extra_graph_path(name), folder.manifest.input
    if path is not None:
        FeatureSession(path, model_input).run(np.zeros((1, *model_input.shape), np.uint8))
    return "sha256 fits, loads and runs"


def _read_samples(folder: VersionFolder) -> GoldenSamples | None:
    path = folder.samples_path()
    return None if path is None else read_golden_samples(path, folder.manifest.input, folder.manifest.classes)


def _verify_graph(folder: VersionFolder, variant: Variant, samples: GoldenSamples | None) -> str:
    """Returns the report for a valid graph. Raises BrokenVersion or ModelFailed for an invalid one."""
    manifest = folder.manifest
    session = Session(folder.graph_path(variant), manifest.input, manifest.classes, usable_cores())
    session.warm_up(WARM_UP_SIZES)
    expected = None if samples is None else samples.probabilities.get(variant.precision)
    if samples is None or expected is None:
        return "sha256 fits, loads and runs; it has no stored samples to compare with"
    difference = float(np.abs(session.run(samples.images) - expected).max())
    if not difference <= TOLERANCES[variant.precision]:
        raise BrokenVersion(
            f"{variant.file} gives other answers than when it was published: a probability differs by {difference:.2g} "
            f"over {len(expected)} samples ({TOLERANCES[variant.precision]:g} is allowed)."
        )
    return f"sha256 fits, loads and runs, answers {len(expected)} samples as published (to {difference:.1g})"
