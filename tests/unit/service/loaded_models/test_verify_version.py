"""`verify` checks a version's bytes, loads it, and compares its predictions with those at publication."""

from pathlib import Path

import numpy as np
import pytest

from service.inference.session import Session
from service.loaded_models.verify_version import Finding, verify
from service.model_store.checksums import sha256_of
from service.model_store.golden_samples import GoldenSamples
from service.model_store.manifest import ExtraGraph, File, read_manifest, write_manifest
from service.model_store.repository import Repository
from tests.support.model_versions import write_version


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a version with samples."""
    folder = write_version(tmp_path, "linear", 3)
    manifest = read_manifest(folder)
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1), np.uint8)
    answers = Session(folder / "model.onnx", manifest.input, manifest.classes, 1).run(images)
    store(folder, GoldenSamples(images, {"float32": answers}))
    return folder


def store(folder: Path, samples: GoldenSamples) -> None:
    samples.write(folder / "samples.npz")
    file = File(file="samples.npz", sha256=sha256_of(folder / "samples.npz"))
    write_manifest(read_manifest(folder).model_copy(update={"samples": file}), folder)


def verify_one(folder: Path) -> Finding:
    [finding] = verify(Repository(folder.parents[1]), "linear", int(folder.name))
    return finding


def test_a_version_that_is_as_it_was(folder: Path) -> None:
    finding = verify_one(folder)
    assert finding.is_ok
    assert finding.text.startswith("sha256 matches, loads and runs, reproduces the published outputs of 5 samples (to ")


def test_a_version_without_samples_is_reported(tmp_path: Path) -> None:
    finding = verify_one(write_version(tmp_path, "linear", 1))
    assert finding.is_ok
    assert "no stored samples" in finding.text


def test_a_changed_graph_file_is_detected(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    finding = verify_one(folder)
    assert (finding.is_ok, finding.subject) == (False, "float32")
    assert "sha256" in finding.text


def test_a_graph_with_other_outputs_is_detected(folder: Path, tmp_path: Path) -> None:
    other = write_version(tmp_path / "others", "linear", 1, seed=9)
    (folder / "model.onnx").write_bytes((other / "model.onnx").read_bytes())
    manifest = read_manifest(folder)
    variant = manifest.variants[0].model_copy(update={"sha256": sha256_of(folder / "model.onnx")})
    write_manifest(manifest.model_copy(update={"variants": [variant]}), folder)
    finding = verify_one(folder)
    assert not finding.is_ok
    assert "does not return the same results as when it was published: a probability differs by 0." in finding.text


def test_outputs_that_are_not_numbers_are_not_as_published(folder: Path) -> None:
    store(folder, GoldenSamples(np.zeros((5, 8, 8, 1), np.uint8), {"float32": np.full((5, 4), np.nan, np.float32)}))
    assert not verify_one(folder).is_ok


@pytest.mark.parametrize("name", ["labels.txt", "samples.npz", "manifest.json"])
def test_a_damaged_file_beside_the_graph_is_found(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"changed")
    finding = verify_one(folder)
    assert (finding.is_ok, finding.subject) == (False, "version")
    assert name in finding.text


def test_extra_graphs_are_tried_too(folder: Path) -> None:
    graph = (folder / "model.onnx").read_bytes()
    (folder / "features.onnx").write_bytes(graph)
    extra = ExtraGraph(file="features.onnx", sha256=sha256_of(folder / "features.onnx"))
    write_manifest(read_manifest(folder).model_copy(update={"extra_graphs": {"features": extra}}), folder)
    assert [(f.subject, f.is_ok) for f in verify(Repository(folder.parents[1]), "linear", 3)] == [
        ("float32", True),
        ("features", True),
    ]
    (folder / "features.onnx").write_bytes(graph + b"x")
    assert [f.is_ok for f in verify(Repository(folder.parents[1]), "linear", 3)] == [True, False]
