"""`python -m tests.gpu.write_weightless_graphs`: rewrites tests/gpu/graphs from untrained networks. Needs Keras."""

from pathlib import Path

import numpy as np
import onnx

from tests.gpu.weightless_graphs import strip
from training import keras_setup
from training.architectures import build
from training.architectures.layers import Normalization
from training.export.graph.keras_to_onnx import to_onnx
from training.export.serving_model import Scaling, to_serving_model

GRAPHS = Path(__file__).parent / "graphs"
NETWORKS = {"resnet50": "resnet50", "vgg16": "vgg-d"}
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def main() -> None:
    keras_setup.make_repeatable(1)
    for name, network in NETWORKS.items():
        model = build(network, normalization=IMAGENET)
        images = np.zeros((1, 224, 224, 3), np.uint8)
        graph = to_onnx(to_serving_model(model, Scaling(), "logits", images))
        strip(graph)
        onnx.save(graph, GRAPHS / f"{name}.onnx")
        print(f"{name}: {(GRAPHS / f'{name}.onnx').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
