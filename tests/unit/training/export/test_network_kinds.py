"""Small networks with many kinds of layers are prepared and converted, or rejected with advice."""

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from tensorflow.python.framework import config

from service.model_store.manifest import Preprocessing
from training.errors import TrainingError
from training.export.graph.keras_to_onnx import to_onnx
from training.export.output_activation import OutputOptions
from training.export.parity import ParitySample, check_parity
from training.export.precision_copy import float64_copy
from training.export.prepare_network import PrepareOptions, is_channels_first, prepare_network
from training.export.scaling import Scaling
from training.export.serving_model import input_of, to_serving_model
from training.export.serving_pipeline import ServingPipeline

SHAPE, CLASSES, IMAGES = (8, 12, 3), 3, 16
Tensor = keras.KerasTensor


def grouped(x: Tensor) -> Tensor:
    return layers.Conv2D(8, 3, groups=4, padding="same", activation="relu")(layers.Conv2D(8, 1)(x))


def convnext_block(x: Tensor) -> Tensor:
    x = layers.Conv2D(8, 4, strides=4)(x)
    y = layers.LayerNormalization()(layers.Conv2D(8, 7, groups=8, padding="same")(x))
    return x + layers.Dense(8)(layers.Activation("gelu")(layers.Dense(16)(y)))


def squeeze_excite(x: Tensor) -> Tensor:
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="swish")(x)
    gate = layers.Dense(6, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    return x * layers.Reshape((1, 1, 6))(gate)


def attention(x: Tensor) -> Tensor:
    tokens = layers.Reshape((6, 8))(layers.Conv2D(8, 4, strides=4)(x))
    tokens = layers.LayerNormalization()(tokens + layers.MultiHeadAttention(2, 4)(tokens, tokens))
    return layers.Reshape((2, 3, 8))(tokens)


def nested(x: Tensor) -> Tensor:
    inner = keras.Sequential([keras.Input((*SHAPE[:2], 4)), layers.Conv2D(8, 3), layers.BatchNormalization()])
    return keras.Sequential([layers.Conv2D(4, 1, activation="relu"), inner])(x)


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "grouped": grouped,
    "ConvNeXt": convnext_block,
    "squeeze-excite": squeeze_excite,
    "attention": attention,
    "nested": nested,
}


def network(body: Callable[[Tensor], Tensor], shape: tuple = SHAPE, dtype: str = "float32") -> keras.Model:
    keras.utils.set_random_seed(4)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        image = keras.Input(shape, dtype="float32")
        x = body(layers.Rescaling(1 / 32, -4)(image))
        x = layers.GlobalAveragePooling2D()(x)
        return keras.Model(image, layers.Dense(CLASSES, activation="softmax")(x))
    finally:
        keras.config.set_dtype_policy(policy)


def random_sample(shape: tuple[int, int, int]) -> ParitySample:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *shape), np.uint8)
    return ParitySample([f"image {index}" for index in range(IMAGES)], images, images)


def assert_exact(model: keras.Model, folder: Path) -> None:
    """Converts the network and checks the graph as an export does."""
    model_input = input_of(model)
    sample = random_sample(model_input.shape)
    serving = to_serving_model(model, Scaling(), OutputOptions(), sample.images)
    onnx.save(to_onnx(serving.network), folder / "model.onnx")
    pipeline = ServingPipeline(folder / "model.onnx", model_input, Preprocessing(), serving.classes)
    parity = check_parity(serving.network, pipeline, sample, float64_copy(serving.network))
    assert parity.float32_error is not None
    assert parity.float32_error < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_each_kind_is_converted_exactly(kind: str, tmp_path: Path) -> None:
    assert_exact(network(KINDS[kind]), tmp_path)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_exported_in_float32(dtype: str, tmp_path: Path) -> None:
    lines: list[str] = []
    mixed = network(nested, dtype=dtype)
    prepared = prepare_network(mixed, PrepareOptions(), lines.append)
    for before, after in zip(mixed.get_weights(), prepared.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert_exact(prepared, tmp_path)
    assert lines == [f"the network computes in {dtype[6:]}; it is exported in float32, with the same weights"]
    assert prepare_network(prepared, PrepareOptions(), lines.append) is prepared


@pytest.mark.parametrize("body", [grouped, lambda x: nested_any_size(x)])
def test_a_network_for_any_size_uses_the_stated_size(body: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    model = network(body, (None, None, 3))
    fixed = prepare_network(model, PrepareOptions(size=(10, 14)), print)
    assert input_of(fixed).shape == (10, 14, 3)
    assert fixed.layers[2].output.shape[1:3] == (10, 14), "its layers have the size too, for feature maps"
    assert_exact(fixed, tmp_path)
    with pytest.raises(TrainingError, match="any size: choose one with --size 224 or --size 192x256"):
        prepare_network(model, PrepareOptions(), print)
    with pytest.raises(TrainingError, match=r"takes 12x8 pixels \(width x height\), not 14x10: leave out --size"):
        prepare_network(network(grouped), PrepareOptions(size=(10, 14)), print)


def nested_any_size(x: Tensor) -> Tensor:
    return keras.Sequential([layers.Conv2D(4, 3, padding="same"), layers.ReLU()])(x)


def test_one_of_several_outputs_is_chosen_by_name(tmp_path: Path) -> None:
    image = keras.Input(SHAPE)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    outputs = [layers.Dense(size, activation="softmax", name=name)(x) for name, size in (("main", 3), ("aux", 2))]
    for model in (keras.Model(image, outputs), keras.Model(image, dict(zip(["main", "aux"], outputs, strict=True)))):
        chosen = prepare_network(model, PrepareOptions(output="aux"), print)
        assert chosen.output_shape == (None, 2)
        images = random_sample(SHAPE).images.astype(np.float32)
        everything = model.predict(images, verbose=0)
        expected = everything["aux"] if isinstance(everything, dict) else everything[1]
        np.testing.assert_allclose(chosen.predict(images, verbose=0), expected, atol=1e-6)
        with pytest.raises(TrainingError, match="has 2 outputs: choose one of main, aux with --output"):
            prepare_network(model, PrepareOptions(), print)
        with pytest.raises(TrainingError, match="has no output 'both'; it has main, aux"):
            prepare_network(model, PrepareOptions(output="both"), print)


@pytest.fixture
def nondeterministic_operations() -> Iterator[None]:
    """Disables deterministic operations, which other tests enable and TensorFlow's compiler does not support."""
    was_deterministic = config.is_op_determinism_enabled()
    config.disable_op_determinism()
    yield
    if was_deterministic:
        config.enable_op_determinism()


def test_channels_first_gets_a_transpose(tmp_path: Path, nondeterministic_operations: None) -> None:
    image = keras.Input((3, 8, 12))
    x = layers.Conv2D(4, 3, data_format="channels_first", activation="relu")(layers.Rescaling(1 / 255)(image))
    x = layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x))
    model = keras.Model(image, x)
    assert is_channels_first(model)
    assert input_of(model).shape == (8, 12, 3)
    assert_exact(model, tmp_path)


def test_four_channels_are_rejected_with_advice(tmp_path: Path) -> None:
    rgba = network(lambda x: layers.Conv2D(4, 3)(x), (8, 12, 4))
    with pytest.raises(TrainingError, match=r"takes 4 channels.*opaque = keras\.ops\.full_like"):
        input_of(rgba)
    image = keras.Input((8, 12, 3))
    opaque = keras.ops.full_like(image[..., :1], 255)
    assert_exact(keras.Model(image, rgba(keras.ops.concatenate([image, opaque], axis=-1))), tmp_path)


def test_a_layer_without_an_onnx_form_is_reported(tmp_path: Path) -> None:
    class Noise(layers.Layer):
        def call(self, x: Tensor) -> Tensor:
            return x + keras.random.normal(keras.ops.shape(x))

    image = keras.Input(SHAPE)
    inner = keras.Sequential([keras.Input(SHAPE), Noise(name="grain")], name="augmenting")
    model = keras.Model(image, layers.GlobalAveragePooling2D()(inner(image)))
    with pytest.raises(
        TrainingError, match=r"cannot express layer 'grain' \(Noise\), which computes Stateless.*Replace"
    ):
        to_onnx(model)
