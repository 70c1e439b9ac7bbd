"""Keras Applications networks are exported with their pixel preprocessing. These tests download no weights."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from training.architectures.keras_applications import APPLICATIONS
from training.cli import main
from training.export.serving_model import input_of
from training.export.sources import DEFAULT_SIDE_PX, IMAGENET_CLASSES, SIDES_PX, build_application, open_application

MODULES = {
    "ResNet50": keras.applications.resnet,
    "MobileNet": keras.applications.mobilenet,
    "DenseNet121": keras.applications.densenet,
}


def up_to_first_convolution(model: keras.Model) -> keras.Model:
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    return keras.Model(model.inputs, first.output)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_folding_is_the_applications_own_preprocessing(name: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, DEFAULT_SIDE_PX, DEFAULT_SIDE_PX, 3)).astype(np.float32)
    keras.utils.set_random_seed(3)
    original = up_to_first_convolution(getattr(keras.applications, name)(weights=None))
    keras.utils.set_random_seed(3)
    built = up_to_first_convolution(build_application(name, None))
    expected = original.predict(MODULES[name].preprocess_input(images.copy()), verbose=0)
    max_abs = np.abs(expected).max()
    assert np.abs(expected - original.predict(images, verbose=0)).max() > 0.1 * max_abs
    np.testing.assert_allclose(built.predict(images, verbose=0), expected, atol=1e-5 * max_abs)


def test_every_size_is_that_of_an_application() -> None:
    assert set(SIDES_PX) <= set(APPLICATIONS)


@pytest.mark.slow
def test_an_application_with_a_users_weights_and_labels_can_be_exported(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    model = keras.applications.MobileNet(weights=None)
    model.save_weights(tmp_path / "users.weights.h5")
    names = {str(index): [f"n{index:08}", f"class {index}"] for index in range(IMAGENET_CLASSES)}
    (tmp_path / "index.json").write_text(json.dumps(names))
    source = open_application("MobileNet", tmp_path / "users.weights.h5", tmp_path / "index.json")
    assert source.labels == tuple(f"class {index}" for index in range(IMAGENET_CLASSES))
    assert (source.name, source.cli_argument) == ("keras.applications.MobileNet", "--from-keras-applications MobileNet")
    assert input_of(source.model).shape == (DEFAULT_SIDE_PX, DEFAULT_SIDE_PX, 3)
    actual_weights = (values for values in source.model.get_weights())
    assert all(np.array_equal(values, next(actual_weights)) for values in model.get_weights())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from-keras-applications", "ResNet51"], "did you mean 'ResNet50'?"),
        (["--from-keras-applications", "ResNet50", "--labels", "few.txt"], "few.txt has 2 labels; ResNet50 has 1000"),
        (
            [],
            "Specify the network to export: the folder of a run, a .keras or .h5 file, a SavedModel folder, or --from-",
        ),
        (["my.keras", "--from-keras-applications", "ResNet50"], "Specify the network to export"),
        (["my.keras", "--weights", "w.h5"], "--weights needs --from-keras-applications"),
        (
            ["--from-keras-applications", "MobileNetV3Small", "--labels", "many.txt", "--weights", "none.h5"],
            "none.h5 does not exist: --weights needs a file with the weights of MobileNetV3Small",
        ),
        (
            ["--from-keras-applications", "MobileNetV3Small", "--labels", "many.txt", "--weights", "few.txt"],
            "few.txt does not contain the weights of MobileNetV3Small with its last layer",
        ),
    ],
)
def test_errors_are_reported_in_a_sentence(words: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("few.txt").write_text("one\ntwo\n")
    Path("many.txt").write_text("".join(f"{index}\n" for index in range(IMAGENET_CLASSES)))
    result = CliRunner().invoke(main, ["export", *words, "--name", "n"])
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not Path("models").exists()
