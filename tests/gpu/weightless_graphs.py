"""Stores graphs without weights, which are small enough for the repository, and fills them with random numbers before
use.

Every large tensor keeps its shape, mean and standard deviation, so that a filled graph computes like an untrained
network. `python -m tests.gpu.weightless_graphs` writes tests/gpu/graphs.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

GRAPHS = Path(__file__).parent / "graphs"
NETWORKS = {"resnet50": "resnet50"}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation per channel."""
MIN_STRIPPED_VALUES = 1024
"""Minimum number of values to remove. Smaller tensors (shapes, biases) are kept."""
SEED = 18


def strip_weights(model: onnx.ModelProto) -> None:
    """Removes the values of all large float tensors, in place."""
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < MIN_STRIPPED_VALUES:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.doc_string = json.dumps({"mean": values.mean(), "std": values.std()})
        for field in ("raw_data", "float_data"):
            tensor.ClearField(field)


def fill_weights(model: onnx.ModelProto) -> None:
    """Fills a stripped model with values, in place. The values are seeded by each tensor's name, so they are always the
    same."""
    for tensor in model.graph.initializer:
        if not tensor.doc_string:
            continue
        statistics = json.loads(tensor.doc_string)
        random = np.random.default_rng([SEED, *hashlib.sha256(tensor.name.encode()).digest()[:8]])
        values = random.standard_normal(tuple(tensor.dims), np.float32) * np.float32(statistics["std"])
        tensor.CopyFrom(numpy_helper.from_array(values + np.float32(statistics["mean"]), tensor.name))


def main() -> None:
    """Writes GRAPHS from untrained networks. Needs Keras."""
    from training import keras_setup
    from training.architectures import build
    from training.architectures.layers import Normalization
    from training.export.graph.keras_to_onnx import to_onnx
    from training.export.output_activation import OutputOptions
    from training.export.scaling import Scaling
    from training.export.serving_model import to_serving_model

    keras_setup.make_deterministic(1)
    for name, network in NETWORKS.items():
        model = build(network, normalization=Normalization(*IMAGENET))
        images = np.zeros((1, 224, 224, 3), np.uint8)
        graph = to_onnx(to_serving_model(model, Scaling(), OutputOptions("logits"), images).network)
        strip_weights(graph)
        onnx.save(graph, GRAPHS / f"{name}.onnx")
        print(f"{name}: {(GRAPHS / f'{name}.onnx').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
