"""Networks with a softmax, sigmoids or a single sigmoid become versions that verify, also in int8 and float16."""

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from keras import layers

from service.loaded_models.verify_version import verify
from service.model_store.repository import Repository
from tests.support.images import image_bytes
from training.export.exporter import export, options_for
from training.export.graph.editor import Graph
from training.export.quantization.convert_precision import to_float16, to_int8
from training.export.serving_pipeline import ServingPipeline
from training.export.sources import Source

SHAPE, IMAGES = (8, 8, 3), 12


def network(activation: str | None, outputs: int) -> keras.Model:
    keras.utils.set_random_seed(2)
    image = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 64, -2)(image)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    return keras.Model(image, layers.Dense(outputs, activation=activation)(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(IMAGES):
        (folder / f"{seed}.png").write_bytes(image_bytes(20, 16, 3, seed=seed))
    return folder


@pytest.mark.parametrize(
    ("activation", "outputs", "labels", "expected"),
    [
        ("softmax", 3, "a\nb\nc\n", "softmax"),
        ("sigmoid", 3, "a\nb\nc\n", "sigmoid"),
        ("sigmoid", 1, "no\nyes\n", "binary"),
        (None, 1, "no\nyes\n", "binary"),
    ],
)
def test_a_head_is_exported_verified_and_converted(
    tmp_path: Path, images: Path, activation: str | None, outputs: int, labels: str, expected: str
) -> None:
    model = network(activation, outputs)
    (tmp_path / "labels.txt").write_text(labels)
    source = Source("net.keras", model)
    options = options_for(
        source,
        name="net",
        models_dir=tmp_path / "models",
        labels=tmp_path / "labels.txt",
        images=images,
        features=False,
    )
    folder = export(source, options, lambda line: None)
    repository = Repository(tmp_path / "models")
    manifest = repository.open("net", 1).manifest
    assert (manifest.activation, manifest.classes) == (expected, len(labels.split()))
    assert all(finding.is_ok for finding in verify(repository, "net", 1))

    pixels = np.random.default_rng(0).integers(0, 256, (32, *SHAPE), np.uint8)
    answers = ServingPipeline.from_manifest(folder / "model.onnx", manifest).run(pixels, 8)
    raw = model.predict(pixels.astype(np.float32), verbose=0).astype(np.float64)
    raw = raw if activation else 1 / (1 + np.exp(-raw))
    np.testing.assert_allclose(answers, np.hstack([1 - raw, raw]) if outputs == 1 else raw, atol=1e-5)

    to_int8(folder / "model.onnx", pixels, tmp_path / "int8.onnx", reduce_range=True, method="minmax")
    to_float16(folder / "model.onnx", tmp_path / "fp16.onnx")
    for name, tolerance in (("int8.onnx", 0.1), ("fp16.onnx", 1e-2)):
        reduced = ServingPipeline.from_manifest(tmp_path / name, manifest).run(pixels, 8)
        np.testing.assert_allclose(reduced, answers, atol=tolerance)
        assert np.ptp(reduced) > 0.5
    graph = Graph(onnx.load(tmp_path / "int8.onnx"))
    last = graph.producer("probabilities")
    assert last is not None
    assert last.op_type in ("Softmax", "Sigmoid", "Concat"), "steps of 1/255 are too coarse for probabilities"
