"""The shipped models over REST: the same predictions as the offline evaluation, and the published accuracy."""

import gzip
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.inference.session import Session
from service.model_store.repository import Repository
from tests.documentation import ROOT
from tests.support.images import encode
from tests.support.service_process import RunningService

MODELS = ROOT / "models"


def mnist(data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the 10,000 test digits, uint8 (n, 28, 28, 1), and their labels."""
    images = gzip.decompress((data_dir / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((data_dir / "mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes())
    count, height, width = struct.unpack(">3I", images[4:16])
    return np.frombuffer(images, np.uint8, offset=16).reshape(count, height, width, 1), np.frombuffer(
        labels, np.uint8, offset=8
    )


def offline(model: str, images: np.ndarray) -> np.ndarray:
    """Returns probabilities computed directly with the shipped graph."""
    folder = Repository(MODELS).open(model, max(Repository(MODELS).versions(model)))
    variant = folder.manifest.variant("float32")
    assert variant is not None
    session = Session(folder.graph_path(variant), folder.manifest.input, folder.manifest.classes, threads=2)
    return np.concatenate([session.run(batch) for batch in np.array_split(images, 100)])


def test_every_shipped_version_is_complete() -> None:
    repository = Repository(MODELS)
    assert "mnist-lenet5" in repository.models()
    for model in repository.models():
        for version in repository.versions(model):
            folder = repository.open(model, version)
            assert (folder.path / "card.md").exists()
            for variant in folder.manifest.variants:
                folder.graph_path(variant)
            for name in folder.manifest.extra_graphs:
                folder.extra_graph_path(name)


def predictions_of(model: str, images: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns the predictions for 10,000 images, which four clients send in 100 forms, and the version's
    description."""
    with RunningService(MODELS) as service, httpx.Client(base_url=service.url, timeout=60) as client:

        def ask(part: np.ndarray) -> list[int]:
            files = [("files", (f"{n}.png", encode(pixels))) for n, pixels in enumerate(part)]
            reply = client.post(f"/api/v1/models/{model}/classify/batch?top_k=1", files=files)
            return [result["predictions"][0]["index"] for result in reply.json()["results"]]

        with ThreadPoolExecutor(4) as threads:
            predictions = [index for part in threads.map(ask, np.split(images, 100)) for index in part]
        return np.array(predictions), service.client.get(f"/api/v1/models/{model}").json()["versions"][0]


def test_all_10_000_digits_over_rest_are_those_of_the_offline_evaluation(data_dir: Path) -> None:
    images, labels = mnist(data_dir)
    predictions, version = predictions_of("mnist-lenet5", images)
    assert (predictions == offline("mnist-lenet5", images).argmax(axis=1)).all()
    assert float((predictions == labels).mean()) == pytest.approx(version["test_accuracy"], abs=1e-9)
    assert version["test_accuracy"] >= 0.992


@pytest.mark.parametrize(("model", "min_accuracy"), [("cifar10-resnet20", 0.88), ("cifar10-resnet9", 0.914)])
def test_all_10_000_photos_over_rest_have_the_accuracy_of_the_card(
    data_dir: Path, model: str, min_accuracy: float
) -> None:
    batch = pickle.loads((data_dir / "cifar-10-batches-py" / "test_batch").read_bytes(), encoding="bytes")
    predictions, version = predictions_of(model, batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    accuracy = float((predictions == batch[b"labels"]).mean())
    assert accuracy == pytest.approx(version["test_accuracy"], abs=served_tolerance(version["precision"]))
    assert accuracy >= min_accuracy


def served_tolerance(precision: str) -> float:
    """Returns the allowed difference. Processors round differently, which changes the predictions of a few of 10,000
    images in int8."""
    return 0.0001 if precision == "float32" else 0.001
