"""Every network of the zoo has the same logits as its exported graph, in batches of 1 and 5.

With random initial weights, the logits hardly depend on the image, and a graph that ignores its input would pass. The
weights are therefore rescaled until the logits vary as much as the logits of a trained network.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from service.model_store.manifest import IMAGE, PROBABILITIES
from training.analysis.costs import LayerCosts
from training.analysis.keras_costs import layer_costs
from training.analysis.onnx_costs import graph_costs
from training.architectures import ARCHITECTURES, build, without_auxiliary_classifiers
from training.architectures.layers import Normalization
from training.export.graph.keras_to_onnx import optimize_in_place, to_onnx

MAX_RELATIVE_ERROR = 1e-4
CLASSES = 7
COLORS = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Sizes at which every layer still has an effect, and options that shrink only large dense layers.
SMALL = {
    "mlp": ((28, 28), {}),
    "xo": ((13, 14), {"filters": (4,)}),
    "lenet5": ((28, 28), {}),
    "convnetjs": ((32, 32), {}),
    "alexnet": ((99, 99), {"units": 64}),
    "zfnet": ((87, 87), {"units": 64, "filters": (64, 96, 64)}),
    "googlenet": ((64, 80), {}),
    **{name: ((32, 48), {"units": 64, "width": 0.25}) for name in ARCHITECTURES if name.startswith("vgg")},
    **{name: ((65, 64), {"width": 0.25}) for name in ARCHITECTURES if name.startswith("resnet")},
    **{name: ((17, 16), {}) for name in ARCHITECTURES if name.startswith("cifar")},
}
OPTIONS = {
    "vgg with batch norm": ("vgg-b", {"batch_norm": True, "units": 64, "width": 0.25}, (32, 32)),
    "ResNet v1.5": ("resnet50", {"stride_in_3x3": True, "width": 0.25}, (64, 64)),
    "GoogLeNet trained with auxiliary classifiers": ("googlenet", {"auxiliary": True}, (64, 64)),
}
AT_224 = [
    pytest.param("vgg-d", marks=pytest.mark.long),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("googlenet", "resnet50")),
]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_small(name: str, tmp_path: Path) -> None:
    (height, width), options = SMALL[name]
    check(name, (height, width, 3), tmp_path, **options)


@pytest.mark.parametrize("case", OPTIONS)
def test_options(case: str, tmp_path: Path) -> None:
    name, options, (height, width) = OPTIONS[case]
    check(name, (height, width, 3), tmp_path, **options)


@pytest.mark.parametrize("name", AT_224)
def test_at_224(name: str, tmp_path: Path) -> None:
    check(name, (224, 224, 3), tmp_path)


def check(name: str, input_shape: tuple[int, int, int], folder: Path, **options) -> None:
    keras.utils.set_random_seed(1)
    network = without_auxiliary_classifiers(
        build(name, input_shape=input_shape, classes=CLASSES, normalization=COLORS, **options)
    )
    images = random_images(8, input_shape)
    rescale(network, images)
    path = folder / "model.onnx"
    with optimize_in_place():
        path.write_bytes(to_onnx(network).SerializeToString())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    expected = np.asarray(network(images.astype("float32"), training=False))
    assert expected.std(axis=0).min() > 0.5, "the logits do not depend on the images"
    for batch in (1, 5):
        (logits,) = session.run([PROBABILITIES], {IMAGE: images[:batch]})
        error = np.abs(logits - expected[:batch]).max() / np.abs(expected[:batch]).max()
        assert error <= MAX_RELATIVE_ERROR
    check_costs(network, path)


def check_costs(network: keras.Model, path: Path) -> None:
    """Checks that a graph has the same costs as its network, except for layers that the conversion folds."""
    network_costs, onnx_costs = list(layer_costs(network)), graph_costs(path).rows
    assert outputs(onnx_costs) == outputs(network_costs)
    assert sum(row.multiply_adds for row in onnx_costs) == sum(row.multiply_adds for row in network_costs)


def outputs(rows: Iterable[LayerCosts]) -> Counter:
    """Counts layers with their output shapes. A mean over the image may keep two dimensions of 1."""
    shapes = ((row.layer, tuple(side for side in row.output if side > 1)) for row in rows)
    return Counter((layer, shape) for layer, shape in shapes if layer != "BN")


def random_images(count: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Returns uint8 images that differ as much as photos: coarse patches of color with fine noise."""
    random = np.random.default_rng(7)
    height, width, channels = shape
    coarse = random.integers(0, 226, (count, 4, 4, channels))
    coarse = coarse.repeat(-(-height // 4), axis=1).repeat(-(-width // 4), axis=2)
    return (coarse[:, :height, :width] + random.integers(0, 30, (count, *shape))).astype(np.uint8)


def rescale(network: keras.Model, images: NDArray[np.uint8]) -> None:
    """Rescales weights so that layer outputs have normal sizes, and logits have a mean of 0 and a standard deviation of
    1."""
    random = np.random.default_rng(3)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            fan_in = np.prod(layer.kernel.shape[:-1])
            layer.kernel.assign(random.standard_normal(layer.kernel.shape, "float32") * (2 / fan_in) ** 0.5)
            if layer.use_bias:
                layer.bias.assign(random.normal(0, 0.1, layer.bias.shape))
    sums = [layer for layer in network.layers if isinstance(layer, keras.layers.Add)]
    for layer in norms:
        # Branches are small relative to their shortcuts, as in trained networks. Otherwise 152 layers amplify float32's
        # rounding errors to 1e-3 of the logits, even between float32 and float64 in TensorFlow.
        is_branch = "shortcut" not in layer.name and any(layer.output is t for add in sums for t in add.input)
        layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape) * (0.2 if is_branch else 1))
        layer.beta.assign(random.normal(0, 0.2, layer.beta.shape))
        layer.momentum = 0.0  # one pass in training mode then sets means and variances
    if norms:
        network(images.astype("float32"), training=True)
    logits = np.asarray(network(images.astype("float32"), training=False), "float64")
    last = network.get_layer("logits")
    last.kernel.assign(np.asarray(last.kernel) / logits.std(axis=0))
    if last.use_bias:
        last.bias.assign((np.asarray(last.bias) - logits.mean(axis=0)) / logits.std(axis=0))
