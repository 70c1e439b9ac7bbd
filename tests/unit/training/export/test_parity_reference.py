"""Parity against float64: confident networks pass, and graphs with other results are rejected."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import helper, numpy_helper

from service.model_store.manifest import Input, Preprocessing
from tests.support.images import random_pixels
from training.errors import TrainingError
from training.export.graph.editor import Graph
from training.export.graph.keras_to_onnx import to_onnx
from training.export.parity import ESTIMATION_BATCH, MAX_FLOAT32_ERROR, ParitySample, check_parity
from training.export.precision_copy import float64_copy
from training.export.serving_pipeline import ServingPipeline

MODEL_INPUT, CLASSES, IMAGES = Input(height=8, width=8, channels=3), 4, 40


class FixedAnswers:
    """A network that returns a fixed row for each image."""

    def __init__(self, answers: np.ndarray) -> None:
        self._answers = answers

    def predict(self, images: np.ndarray, /, *, verbose: int = 0) -> np.ndarray:
        return self._answers[: len(images)]

    def run(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        return self._answers[: len(images)]


@pytest.fixture(scope="module")
def sample() -> ParitySample:
    images = np.stack([random_pixels(*MODEL_INPUT.shape, seed=seed) for seed in range(IMAGES)])
    return ParitySample([f"image {index}" for index in range(IMAGES)], images, images)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """Returns a network with convolutions, batch normalization, padding and activations."""
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(3)
    image = keras.Input(MODEL_INPUT.shape)
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.BatchNormalization(epsilon=1e-3, name="norm")(x)
    x = layers.ReLU(name="second_relu")(layers.Conv2D(8, 3, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, layers.Dense(CLASSES, activation="softmax", name="dense")(x))
    norm = model.get_layer("norm")
    norm.set_weights([random.uniform(0.5, 1.5, 6), *random.normal(size=(2, 6)), random.uniform(0.01, 0.05, 6)])
    return model


def rebuilt(network: keras.Model, change: Callable[[dict], None]) -> keras.Model:
    """Returns a network with a changed configuration and the same weights."""
    config = network.get_config()
    change({layer["config"]["name"]: layer for layer in config["layers"]})
    other = keras.Model.from_config(config)
    other.set_weights(network.get_weights())
    return other


def without_relu(layers_by_name: dict) -> None:
    layers_by_name["second_relu"]["config"]["negative_slope"] = 1.0


def pipeline_of(graph: onnx.ModelProto, folder: Path) -> ServingPipeline:
    onnx.save(graph, folder / "model.onnx")
    return ServingPipeline(folder / "model.onnx", MODEL_INPUT, Preprocessing(), CLASSES)


def with_symmetric_padding(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Pads the stride-2 convolution at the top and left, as other frameworks do."""
    [conv] = [node for node in graph.graph.node if node.op_type == "Conv" and list(strides_of(node)) == [2, 2]]
    for attribute in [a for a in conv.attribute if a.name in ("auto_pad", "pads")]:
        conv.attribute.remove(attribute)
    conv.attribute.append(helper.make_attribute("pads", [1, 1, 0, 0]))
    return graph


def strides_of(node: onnx.NodeProto) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "strides"), [1, 1])


def with_shifted_bias(graph: onnx.ModelProto, shift: float) -> onnx.ModelProto:
    """Adds `shift` to the first logit, which changes a probability by up to a quarter of `shift`."""
    [softmax] = [node for node in graph.graph.node if node.op_type == "Softmax"]
    offset = Graph(graph).add_constant("shift", np.array([shift, 0, 0, 0], np.float32))
    shifted = helper.make_node("Add", [softmax.input[0], offset], ["shifted"])
    graph.graph.node.insert(list(graph.graph.node).index(softmax), shifted)
    softmax.input[0] = "shifted"
    return graph


WRONG_GRAPHS: dict[str, Callable[[keras.Model], onnx.ModelProto]] = {
    "another epsilon": lambda n: to_onnx(rebuilt(n, lambda c: c["norm"]["config"].update(epsilon=1e-2))),
    "a slightly other epsilon": lambda n: to_onnx(rebuilt(n, lambda c: c["norm"]["config"].update(epsilon=1.1e-3))),
    "a dropped activation": lambda n: to_onnx(rebuilt(n, without_relu)),
    "other padding": lambda n: with_symmetric_padding(to_onnx(n)),
    "a difference of 1e-4": lambda n: with_shifted_bias(to_onnx(n), 6e-4),
}


@pytest.fixture(scope="module")
def reference(network: keras.Model) -> keras.Model:
    copy = float64_copy(network)
    assert copy is not None
    return copy


def test_the_copy_computes_in_float64(network: keras.Model, reference: keras.Model, sample: ParitySample) -> None:
    images = sample.images.astype(np.float32)
    answers, exact = network.predict(images, verbose=0), reference.predict(images, verbose=0)
    assert exact.dtype == np.float64
    assert 0 < np.abs(answers - exact).max() < 1e-6
    assert keras.config.dtype_policy().name == "float32"


def test_a_true_graph_passes_with_three_figures(
    network: keras.Model, reference: keras.Model, sample: ParitySample, tmp_path: Path
) -> None:
    parity = check_parity(network, pipeline_of(to_onnx(network), tmp_path), sample, reference)
    assert parity.graph_error is not None
    assert parity.float32_error is not None
    assert 0 < parity.graph_error <= 2 * parity.float32_error + 1e-6
    assert 0 < parity.max_abs_difference <= parity.graph_error + parity.float32_error


@pytest.mark.parametrize("fault", WRONG_GRAPHS)
def test_a_wrong_graph_is_rejected(
    network: keras.Model, reference: keras.Model, sample: ParitySample, tmp_path: Path, fault: str
) -> None:
    wrong = pipeline_of(WRONG_GRAPHS[fault](network), tmp_path)
    answers = network.predict(sample.images.astype(np.float32), verbose=0)
    assert np.abs(wrong.run(sample.prepared, 64) - answers).max() > 8e-5
    with pytest.raises(TrainingError, match="differs from the network"):
        check_parity(network, wrong, sample, reference)


ROWS = np.random.default_rng(0).dirichlet(np.ones(4), IMAGES)
"""Computes probabilities in float64."""


@pytest.mark.parametrize(("graph_error", "is_accepted"), [(1.9e-4, True), (2.2e-4, False)])
def test_a_graph_may_have_twice_the_error_of_the_network_in_float32(
    sample: ParitySample, graph_error: float, is_accepted: bool
) -> None:
    keras_error = np.array([1e-4, -1e-4, 0, 0])
    network, graph = FixedAnswers(ROWS + keras_error), FixedAnswers(ROWS - keras_error * graph_error / 1e-4)
    if is_accepted:
        parity = check_parity(network, graph, sample, FixedAnswers(ROWS))
        assert (parity.graph_error, parity.float32_error) == pytest.approx((graph_error, 1e-4), rel=1e-6)
        assert parity.max_abs_difference == pytest.approx(graph_error + 1e-4)
    else:
        with pytest.raises(TrainingError, match=r"by more than 0\.0002 \(its own error in float32 is 0\.0001\)"):
            check_parity(network, graph, sample, FixedAnswers(ROWS))


@pytest.mark.parametrize(("margin", "is_accepted"), [(1.5e-4, True), (3e-4, False)])
def test_another_class_is_accepted_only_where_both_are_as_probable(
    sample: ParitySample, margin: float, is_accepted: bool
) -> None:
    exact = ROWS.copy()
    exact[0] = [0.4 + margin / 2, 0.4 - margin / 2, 0.1, 0.1]
    network, graph = FixedAnswers(exact + np.array([1e-4, -1e-4, 0, 0])), exact.copy()
    graph[0, :2] += [-1.8e-4, 1.8e-4]
    if is_accepted:
        assert check_parity(network, FixedAnswers(graph), sample, FixedAnswers(exact)).images == IMAGES
    else:
        with pytest.raises(TrainingError, match="class 0 became 1"):
            check_parity(network, FixedAnswers(graph), sample, FixedAnswers(exact))


def test_a_reference_that_is_another_network_is_not_used(sample: ParitySample) -> None:
    other = FixedAnswers(ROWS[:, ::-1])
    assert np.abs(ROWS - ROWS[:, ::-1]).max() > MAX_FLOAT32_ERROR
    parity = check_parity(FixedAnswers(ROWS), FixedAnswers(ROWS + 1e-6), sample, other)
    assert (parity.graph_error, parity.float32_error) == (None, None)
    with pytest.raises(TrainingError, match="by more than 1e-05 or in the class"):
        check_parity(FixedAnswers(ROWS), FixedAnswers(ROWS + 5e-5), sample, other)


@pytest.mark.parametrize(("difference", "passes"), [(7e-5, True), (1e-4, False)])
def test_without_a_reference_the_error_is_estimated_with_other_batches(
    sample: ParitySample, difference: float, passes: bool
) -> None:
    """Sums in another order change the answers of this network by 4e-5, so twice as much is allowed."""

    number_by_image = {image.tobytes(): number for number, image in enumerate(sample.images)}

    class RoundedAnswers(FixedAnswers):
        def predict(self, images: np.ndarray, /, *, verbose: int = 0) -> np.ndarray:
            numbers = [number_by_image[np.rint(image).astype(np.uint8).tobytes()] for image in images]
            return ROWS[numbers] + (4e-5 if len(images) < len(ROWS) else 0)

    answers, graph = RoundedAnswers(ROWS), FixedAnswers(ROWS + difference)
    assert len(ROWS) > ESTIMATION_BATCH
    if passes:
        parity = check_parity(answers, graph, sample)
        assert parity.graph_error == pytest.approx(difference)
        assert parity.float32_error == pytest.approx(4e-5)
    else:
        with pytest.raises(TrainingError, match="by more than 8"):
            check_parity(answers, graph, sample)


def test_a_network_that_cannot_be_copied_has_no_reference() -> None:
    class NoConfig(layers.Layer):
        def __init__(self, table: np.ndarray) -> None:
            super().__init__()
            self.table = table

        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            return x + self.table

    image = keras.Input((4,))
    assert float64_copy(keras.Model(image, NoConfig(np.ones(4, np.float32))(image))) is None


def test_constants_in_the_graph_of_a_network_are_copied(sample: ParitySample) -> None:
    image = keras.Input(MODEL_INPUT.shape)
    x = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])(image)
    x = keras.ops.mean(keras.ops.cast(x, "float32"), axis=(1, 2)) * numpy_helper.to_array(
        numpy_helper.from_array(np.array([0.1, 0.2, 0.3], np.float32))
    )
    network = keras.Model(image, keras.ops.softmax(x))
    copy = float64_copy(network)
    assert copy is not None
    images = sample.images.astype(np.float32)
    exact = copy.predict(images, verbose=0)
    assert exact.dtype == np.float64
    np.testing.assert_allclose(network.predict(images, verbose=0), exact, atol=1e-6)
