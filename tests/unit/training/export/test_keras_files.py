"""Networks are loaded from files and folders of Keras and TensorFlow; errors state the cause in one sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow
from keras import layers

from training.errors import TrainingError
from training.export.graph.keras_to_onnx import to_onnx
from training.export.keras_files import LoadOptions, cause_of, load_network
from training.export.output_activation import OutputOptions
from training.export.precision_copy import float64_copy
from training.export.prepare_network import PrepareOptions, prepare_network
from training.export.scaling import Scaling
from training.export.serving_model import input_of, to_serving_model
from training.export.sources import open_source

KERAS_2 = Path(__file__).parents[3] / "data" / "keras2"
SHAPE = (8, 8, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)
MODULE = """
import keras

class Half(keras.layers.Layer):
    def call(self, x):
        return x / 2

def negated(x):
    return -x
"""


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE, name="photo")
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(layers.Rescaling(1 / 255, name="scale")(image))
    return keras.Model(image, layers.Dense(3, activation="softmax", name="dense")(layers.Flatten(name="flat")(x)))


def answers(model: keras.Model) -> np.ndarray:
    return model.predict(IMAGES.astype(np.float32), verbose=0)


def assert_exportable(model: keras.Model, expected: np.ndarray) -> None:
    prepared = prepare_network(model, PrepareOptions(), print)
    assert input_of(prepared).shape == SHAPE
    serving = to_serving_model(prepared, Scaling(), OutputOptions(), IMAGES)
    np.testing.assert_allclose(answers(serving.network), expected, atol=1e-5)
    assert {node.op_type for node in to_onnx(serving.network).graph.node} >= {"Conv", "Softmax"}


def test_a_saved_model_folder_is_exported(tmp_path: Path) -> None:
    model = network()
    model.export(tmp_path / "saved", verbose=False)
    source = open_source(tmp_path / "saved", None)
    assert source.name == "saved"
    assert source.model is not None
    assert_exportable(source.model, answers(model))


def grouped() -> keras.Model:
    """Keras traces a grouped convolution as a function for TensorFlow's compiler."""
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE)
    x = layers.Conv2D(6, 3, groups=3, activation="relu")(layers.Rescaling(1 / 255)(image))
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))


def test_a_grouped_convolution_in_a_saved_model_is_exported(tmp_path: Path) -> None:
    model = grouped()
    model.export(tmp_path / "saved", verbose=False)
    graph = to_onnx(to_serving_model(load_network(tmp_path / "saved"), Scaling(), OutputOptions(), IMAGES).network)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"image": IMAGES})[0], answers(model), atol=1e-6)


def any_size() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(image))
    return keras.Model(image, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def test_a_saved_model_of_any_size_needs_a_size(tmp_path: Path) -> None:
    model = any_size()
    model.export(tmp_path / "saved", verbose=False)
    sized = prepare_network(load_network(tmp_path / "saved"), PrepareOptions(size=SHAPE[:2]), print)
    assert input_of(sized).shape == SHAPE
    np.testing.assert_allclose(answers(sized), answers(model), atol=1e-6)


def test_a_saved_model_for_single_images_is_rejected_in_a_sentence(tmp_path: Path) -> None:
    class Mean(tensorflow.Module):
        @tensorflow.function(input_signature=[tensorflow.TensorSpec((1, *SHAPE))])
        def predict(self, images: tensorflow.Tensor) -> dict[str, tensorflow.Tensor]:
            return {"scores": tensorflow.reduce_mean(images, [1, 2])}

    module = Mean()
    tensorflow.saved_model.save(module, str(tmp_path / "one"), signatures={"serving_default": module.predict})
    with pytest.raises(TrainingError, match="one takes batches of exactly 1: export it with the batch size None"):
        load_network(tmp_path / "one")


def test_a_saved_model_in_half_precision_is_rejected_in_a_sentence(tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network().export(tmp_path / "half", verbose=False)
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(TrainingError, match=r"half computes in float16: export the \.keras file of the network"):
        load_network(tmp_path / "half")


def test_a_folder_of_an_unknown_kind_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not the folder of a run \(it has no recipe\.json\), nor a SavedModel"):
        open_source(tmp_path, None)
    (tmp_path / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="cannot be loaded as a SavedModel: "):
        open_source(tmp_path, None)


@pytest.mark.parametrize("name", ["tutorial.h5", "tutorial_saved_model"])
def test_files_of_keras_2_tutorials_are_exported(name: str) -> None:
    recorded = np.load(KERAS_2 / "answers.npz")
    model = open_source(KERAS_2 / name, None).model
    images = recorded["images"][:, :16, :16]
    assert model is not None
    assert input_of(model).shape == (16, 16, 3)
    serving = to_serving_model(model, Scaling(), OutputOptions(), images)
    logits = recorded["tutorial"].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    actual = serving.network.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert {node.op_type for node in to_onnx(serving.network).graph.node} >= {"Conv", "Softmax"}


def older_config(config: Any) -> Any:
    """Returns a configuration of Keras 2.12 or newer as the first releases of Keras 2 wrote it."""
    if isinstance(config, list):
        return [older_config(value) for value in config]
    if not isinstance(config, dict):
        return config
    newer = ("module", "registered_name", "build_config")
    older = {key: older_config(value) for key, value in config.items() if key not in newer}
    if older.get("class_name") == "Sequential":
        layers_of = older["config"]["layers"]
        older["config"]["layers"] = [layer for layer in layers_of if layer["class_name"] != "InputLayer"]
    return older | ({"class_name": "Model"} if older.get("class_name") == "Functional" else {})


@pytest.mark.parametrize("is_older", [False, True])
def test_a_file_of_teachable_machine_is_exported_with_its_scaling(tmp_path: Path, is_older: bool) -> None:
    """The network's depthwise convolutions have `groups`, and the network is a Sequential of two Sequential
    networks."""
    recorded, path = np.load(KERAS_2 / "answers.npz"), tmp_path / "keras_model.h5"
    shutil.copy(KERAS_2 / "teachable_machine.h5", path)
    if is_older:
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(older_config(json.loads(file.attrs["model_config"])))
    model = open_source(path, None).model
    images = recorded["images"]
    assert model is not None
    prepared = prepare_network(model, PrepareOptions(), print)
    assert input_of(prepared).shape == (24, 24, 3)
    serving = to_serving_model(prepared, Scaling(scale=1 / 127.5, mean=(1.0,)), OutputOptions(), images)
    session = onnxruntime.InferenceSession(to_onnx(serving.network).SerializeToString())
    [actual] = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(actual, recorded["teachable_machine"], atol=1e-5)


def custom_network(folder: Path) -> Path:
    namespace: dict = {"__name__": "elsewhere"}
    exec(MODULE, namespace)
    image = keras.Input(SHAPE)
    x = layers.Flatten()(namespace["Half"](name="half")(image))
    path = folder / "custom.keras"
    keras.Model(image, layers.Dense(3, activation=namespace["negated"])(x)).save(path)
    return path


def test_custom_objects_come_from_a_module(tmp_path: Path) -> None:
    path, module = custom_network(tmp_path), tmp_path / "objects.py"
    module.write_text(MODULE)
    with pytest.raises(TrainingError, match=r"it uses '(Half|negated)', which is not part of Keras: use --custom-obj"):
        load_network(path)
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(TrainingError, match=r"empty\.py does not define '(Half|negated)', which it uses"):
        load_network(path, LoadOptions(custom_objects=tmp_path / "empty.py"))
    model = load_network(path, LoadOptions(custom_objects=module))
    assert model.get_layer("half").name == "half"
    copy = float64_copy(model)
    assert copy is not None, "the reference of the parity check"
    np.testing.assert_allclose(answers(copy), answers(model), rtol=1e-5)
    module.write_text("raise ValueError('no')")
    with pytest.raises(TrainingError, match=r"--custom-objects .*objects\.py fails: ValueError: no"):
        load_network(path, LoadOptions(custom_objects=module))
    with pytest.raises(TrainingError, match="is not a Python file"):
        load_network(path, LoadOptions(custom_objects=tmp_path / "none.py"))


SUBCLASS = """
import keras

class Brightness(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.flat = keras.layers.Flatten()
        self.dense = keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.dense(self.flat(x / 255))
"""


def test_a_subclassed_network_takes_the_images_that_it_was_built_with(tmp_path: Path) -> None:
    module, namespace = tmp_path / "objects.py", {}
    module.write_text(SUBCLASS)
    exec(SUBCLASS, namespace)
    model = namespace["Brightness"]()
    expected = answers(model)
    model.save(tmp_path / "own.keras")
    loaded = load_network(tmp_path / "own.keras", LoadOptions(custom_objects=module))
    assert input_of(loaded).shape == SHAPE
    np.testing.assert_allclose(answers(loaded), expected, rtol=1e-5)


def test_a_file_of_weights_only_is_named_as_such(tmp_path: Path) -> None:
    network().save_weights(tmp_path / "all.weights.h5")
    (tmp_path / "all.weights.h5").rename(tmp_path / "all.h5")
    with pytest.raises(TrainingError, match=r"it contains weights only: save the whole network with model\.save"):
        load_network(tmp_path / "all.h5")


@pytest.mark.parametrize("name", ["TFOpLambda", "SlicingOpLambda"])
def test_features_of_keras_2_are_not_taken_for_custom_objects(name: str) -> None:
    assert "it was saved by Keras 2" in cause_of(ValueError(f"Unknown layer: '{name}'. Please ensure"))


def test_code_in_the_file_runs_only_when_it_is_allowed(tmp_path: Path) -> None:
    image = keras.Input(SHAPE)
    doubled = layers.Lambda(lambda x: x * 2, output_shape=SHAPE)(image)
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(doubled)))
    model.save(tmp_path / "code.keras")
    with pytest.raises(TrainingError, match=r"a Lambda layer\), which is executed when .* loaded.*--unsafe-lambda\.$"):
        load_network(tmp_path / "code.keras")
    loaded = load_network(tmp_path / "code.keras", LoadOptions(unsafe_lambda=True))
    np.testing.assert_allclose(answers(loaded), answers(model), rtol=1e-5)


def test_a_file_that_is_not_a_network_is_reported_in_a_sentence(tmp_path: Path) -> None:
    for name in ("text.keras", "text.h5"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(TrainingError, match=rf"{name} cannot be loaded as a Keras model: .{{5,250}}$") as raised:
            load_network(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_a_long_message_of_keras_becomes_its_first_sentence() -> None:
    error = ValueError("The layer is odd. It was given config={'a': 1}\nmore\nand more")
    assert cause_of(error) == "The layer is odd"
    assert len(cause_of(ValueError("x" * 9999))) < 250
