"""Models with sigmoids and binary models over every protocol: each label has its own probability, or two sum to 1."""

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.inference.session import Session
from service.model_store.manifest import Input
from tests.support.images import image_bytes, random_pixels
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

SHAPE, TAGS = (8, 8, 1), 6


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_version(root, "tags", 1, SHAPE, TAGS, activation="sigmoid")
    write_version(root, "yes-no", 1, SHAPE, 2, activation="binary")
    return root


@pytest.fixture(scope="module")
def running(models: Path) -> Iterator[RunningService]:
    with RunningService(models) as service:
        yield service


@pytest.fixture(scope="module")
def answers(models: Path) -> np.ndarray:
    """Returns the probabilities of all labels, in their order, for the image with seed 5."""
    session = Session(models / "tags/1/model.onnx", Input(height=8, width=8, channels=1), TAGS, 1)
    return session.run(random_pixels(*SHAPE, seed=5)[np.newaxis])[0]


def labels(predictions: list[dict]) -> list[str]:
    return [prediction["label"] for prediction in predictions]


def test_labels_above_a_half_are_answered_sorted_and_with_top_k_the_first_of_all(
    running: RunningService, answers: np.ndarray
) -> None:
    likely = [f"class-{index}" for index in np.argsort(-answers) if answers[index] > 0.5]
    assert 1 < len(likely) < TAGS
    path = "/api/v1/models/tags/classify"
    reply = running.client.post(path, content=image_bytes(seed=5)).json()
    assert labels(reply["predictions"]) == likely
    np.testing.assert_allclose(
        [prediction["probability"] for prediction in reply["predictions"]], np.sort(answers)[::-1][: len(likely)], 1e-5
    )
    everything = running.client.post(path, content=image_bytes(seed=5), params={"top_k": TAGS}).json()["predictions"]
    assert labels(everything) == [f"class-{index}" for index in np.argsort(-answers)]
    images = {"images": [{"data": base64.b64encode(image_bytes(seed=5)).decode()}]}
    batch = running.client.post(f"{path}/batch", json=images).json()
    assert labels(batch["results"][0]["predictions"]) == likely


def test_v1_and_v2_give_the_probabilities_of_all_labels(running: RunningService, answers: np.ndarray) -> None:
    pixels = random_pixels(*SHAPE, seed=5)
    reply = running.client.post("/v1/models/tags:predict", json={"instances": [pixels.tolist()]}).json()
    np.testing.assert_allclose(reply["predictions"][0], answers, 1e-5)
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *SHAPE], "data": pixels.reshape(-1).tolist()}
    reply = running.client.post("/v2/models/tags/infer", json={"inputs": [tensor]}).json()
    np.testing.assert_allclose(reply["outputs"][0]["data"], answers, 1e-5)


def test_a_binary_model_answers_both_labels(running: RunningService) -> None:
    reply = running.client.post("/api/v1/models/yes-no/classify", content=image_bytes(seed=5)).json()
    assert sum(prediction["probability"] for prediction in reply["predictions"]) == pytest.approx(1, abs=1e-5)
    assert len(reply["predictions"]) == 2


def test_the_activation_is_described_explained_and_counted(running: RunningService, answers: np.ndarray) -> None:
    descriptions = {name: running.client.get(f"/api/v1/models/{name}").json() for name in ("tags", "yes-no")}
    assert [d["versions"][0]["activation"] for d in descriptions.values()] == ["sigmoid", "binary"]
    least_likely = int(np.argmin(answers))
    before = running.metric("convoy_predictions_total", model="tags", label=f"class-{least_likely}")
    reply = running.client.post(
        "/api/v1/models/tags/explain", params={"class": str(least_likely)}, content=image_bytes(seed=5)
    ).json()
    assert reply["explained"]["probability"] == pytest.approx(float(answers[least_likely]), abs=1e-5)
    running.client.post("/api/v1/models/tags/classify", content=image_bytes(seed=5))
    assert answers[least_likely] < 0.5
    assert running.metric("convoy_predictions_total", model="tags", label=f"class-{int(np.argmax(answers))}") >= 1
    assert before == 0
