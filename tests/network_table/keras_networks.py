"""Exports a Keras Applications network with random weights and confident outputs, and prints its figures."""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

IMAGES, CLASSES = 24, 1000
LOGIT_SPREAD = 4.0
"""Standard deviation of a logit over images, so that outputs are as confident as those of a trained network."""


def main(name: str) -> None:
    from service.model_store.manifest import Preprocessing
    from training.export.graph.keras_to_onnx import to_onnx
    from training.export.output_activation import OutputOptions
    from training.export.parity import ParitySample, check_parity
    from training.export.precision_copy import float64_copy
    from training.export.scaling import Scaling
    from training.export.serving_model import input_of, to_serving_model
    from training.export.serving_pipeline import ServingPipeline
    from training.export.version_folder import generated_images

    model = random_network(name)
    model_input = input_of(model)
    noise = np.random.default_rng(1).integers(0, 256, (IMAGES - 8, *model_input.shape), np.uint8)
    images = np.concatenate([generated_images(model_input), noise])
    sample = ParitySample([f"image {index}" for index in range(IMAGES)], images, images)
    started_s = time.perf_counter()
    serving = to_serving_model(model, Scaling(), OutputOptions("probabilities"), images)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(to_onnx(serving.network), path)
        export_s = time.perf_counter() - started_s
        pipeline = ServingPipeline(path, model_input, Preprocessing(), CLASSES)
        parity = check_parity(serving.network, pipeline, sample, float64_copy(serving.network))
        figures = parity.model_dump() | {"bytes": path.stat().st_size, "seconds": export_s}
    print(json.dumps({"name": name, "side": model_input.height, **figures}))


def random_network(name: str):
    """Returns the application with random weights and statistics, and with logits of the usual spread."""
    import keras

    from training.export.sources import build_application

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    model = build_application(name, None)
    side = model.input_shape[1]
    images = random.integers(0, 256, (8, side, side, 3)).astype(np.float32)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.set_weights([_statistic(random, weight.path, weight.shape) for weight in layer.weights])
        layer.momentum = 0.0
    model(images, training=True)  # with this momentum, means and variances become those of the images
    head = next(layer for layer in reversed(model.layers) if layer.weights)
    probabilities = model.predict(images, verbose=0).astype(np.float64)
    spread = float(np.log(np.maximum(probabilities, 1e-30)).std(axis=0).mean())
    kernel, *biases = head.get_weights()
    head.set_weights([kernel * (LOGIT_SPREAD / max(spread, 1e-6)), *biases])
    return model


def _statistic(random: np.random.Generator, path: str, shape: tuple[int, ...]) -> np.ndarray:
    is_scale = path.endswith(("gamma", "moving_variance"))
    return random.uniform(0.5, 1.5, shape) if is_scale else random.normal(0, 0.1, shape)


if __name__ == "__main__":
    import os

    os.environ["KERAS_BACKEND"] = "tensorflow"
    from training.cli.options import import_keras

    import_keras()
    main(sys.argv[1])
