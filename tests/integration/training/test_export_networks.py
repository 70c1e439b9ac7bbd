"""Networks of many kinds are published unchanged, or nothing is published."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from service.hardware import usable_cores
from service.imaging.decode import decode
from service.imaging.preprocess import preprocess
from service.inference.session import Session
from service.loaded_models.verify_version import verify
from service.model_store.repository import Repository, VersionFolder
from tests.support.images import image_bytes
from training.analysis import evaluate
from training.data.load_dataset import DataOptions
from training.errors import TrainingError
from training.export.exporter import export, options_for
from training.export.feature_maps import add_feature_maps
from training.export.sources import open_source
from training.fit import trainer
from training.recipes import find_recipe
from training.recipes.settings import with_settings
from training.runs.run_folder import Run

COLORS = (24, 20, 3)
CLASSES = 3


def discard_log(line: str) -> None:
    """Discards a log line."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = with_settings(find_recipe("xo"), {"epochs": "2"})
    return trainer.train(recipe, tmp_path_factory.mktemp("runs"), discard_log)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of a few images with different sizes and formats."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(12):
        kind = ("PNG", "JPEG", "WEBP")[index % 3]
        (folder / f"{index:02}.{kind.lower()}").write_bytes(image_bytes(40 + index, 60 - index, 3, index, kind))
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("red\ngreen\nblue\n")
    return path


def network(activation: str | None = "softmax", *extra: layers.Layer, shape: tuple = COLORS) -> keras.Model:
    """Returns a small convolutional classifier with different outputs for different images."""
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            *extra,
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES, activation=activation),
        ]
    )


def save_model(model: keras.Model, folder: Path) -> Path:
    model.save(folder / "mine.keras")
    return folder / "mine.keras"


def publish(path: Path, models: Path, dataset: str | None = None, **choices: object) -> VersionFolder:
    source = open_source(path, dataset)
    options = options_for(source, **{"name": "mine", "models_dir": models} | choices)
    folder = export(source, options, discard_log)
    return Repository(models).open(options.name, int(folder.name))


def answers(version: VersionFolder, encoded: list[bytes]) -> np.ndarray:
    """Returns the probabilities that the service would return."""
    manifest = version.manifest
    path = version.graph_path(manifest.variants[0])
    session = Session(path, manifest.input, manifest.classes, usable_cores())
    preprocessing = manifest.preprocessing
    pixels = [decode(data, manifest.input.channels, preprocessing.background, max_pixels=10**6) for data in encoded]
    return session.run(np.stack([preprocess(image, manifest.input, preprocessing) for image in pixels]))


def test_a_run_becomes_a_version_with_everything_in_it(run: Run, tmp_path: Path) -> None:
    version = publish(run.folder, tmp_path)
    assert {path.name for path in version.path.iterdir()} == {
        *("model.onnx", "features.onnx", "samples.npz", "manifest.json", "labels.txt"),
        *("card.md", "curves.png", "confusion.png"),
    }
    manifest = version.manifest
    [variant] = manifest.variants
    assert version.labels == ("X", "O")
    assert manifest.parameters == 758
    assert manifest.provenance.recipe == "xo"
    assert manifest.provenance.seed == 1
    assert (variant.parity.images, variant.parity.batch_sizes) == (1000, [1, 7, 64])
    assert variant.parity.max_abs_difference <= 1e-5
    extra = manifest.extra_graphs["features"]
    assert version.extra_graph_path("features") == version.path / "features.onnx"
    float32, features = verify(Repository(tmp_path), version.model, version.version)
    assert float32.is_ok
    assert features.is_ok
    assert "reproduces the published outputs of 8 samples" in float32.text
    assert extra.parity.images == 1000
    assert extra.parity.max_abs_difference <= 1e-5
    assert variant.test_accuracy == manifest.metrics["test_accuracy"] == run.metrics()["test"]["accuracy"]
    card = (version.path / "card.md").read_text()
    assert f"**{variant.test_accuracy:.2%}** of the 1,000 test images" in card
    assert "convoy-train run xo --seed 1 --set epochs=2" in card
    assert "/" + run.folder.parts[1] not in card  # the card contains no folder of this machine
    for name in ("curves.png", "confusion.png"):
        Image.open(version.path / name).verify()


def test_evaluate_measures_the_version_and_the_run_alike(run: Run, tmp_path: Path) -> None:
    version = publish(run.folder, tmp_path)
    accuracy = run.metrics()["test"]["accuracy"]
    for source in (version.path, run.folder):
        lines = list(evaluate.evaluate_source(source, None, DataOptions(), "float32"))
        assert lines[0].startswith(f"accuracy {accuracy:.4f} over 1,000 test images")
        assert [line.split()[0] for line in lines[1:]] == ["X", "O"]
    with pytest.raises(TrainingError, match="has no int8 graph; it has float32"):
        list(evaluate.evaluate_source(version.path, None, DataOptions(), "int8"))


def test_feature_maps_are_added_to_a_version_of_the_same_network_only(run: Run, tmp_path: Path) -> None:
    version = publish(run.folder, tmp_path, features=False)
    before = {path.name: path.read_bytes() for path in version.path.iterdir()}
    assert "features.onnx" not in before
    source = open_source(run.folder, None)
    other = keras.models.clone_model(source.model)  # random weights
    with pytest.raises(TrainingError, match="differs from the network"):
        add_feature_maps(version.path, replace(source, model=other), discard_log)
    assert {path.name: path.read_bytes() for path in version.path.iterdir()} == before
    add_feature_maps(version.path, source, discard_log)
    manifest = Repository(tmp_path).open("mine", 1).manifest
    assert list(manifest.extra_graphs) == ["features"]
    assert manifest.variants == version.manifest.variants
    before.pop("manifest.json")
    assert {name: (version.path / name).read_bytes() for name in before} == before


def test_the_next_export_is_the_next_version(run: Run, tmp_path: Path) -> None:
    first, second = publish(run.folder, tmp_path), publish(run.folder, tmp_path)
    assert (first.version, second.version) == (1, 2)
    assert first.manifest.metrics == second.manifest.metrics


@pytest.mark.parametrize("activation", ["softmax", None], ids=["probabilities", "logits"])
def test_an_own_network_is_exported_with_own_images(
    activation: str | None, photos: Path, labels: Path, tmp_path: Path
) -> None:
    model = network(activation)
    scale = {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    version = publish(
        save_model(model, tmp_path), tmp_path / "models", labels=labels, images=photos, shorter=30, **scale
    )
    assert version.manifest.preprocessing.shorter == 30
    assert version.manifest.variants[0].test_accuracy is None
    assert version.manifest.variants[0].parity.images == 1000

    encoded = [path.read_bytes() for path in sorted(photos.iterdir())]
    preprocessing, size = version.manifest.preprocessing, version.manifest.input
    model_inputs = np.stack([preprocess(decode(data, 3, 255, 10**6), size, preprocessing) for data in encoded])
    raw = model.predict((model_inputs / 255 - scale["mean"]) / scale["std"], verbose=0)
    expected = raw if activation else np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answers(version, encoded), expected, atol=1e-5)
    assert "Not measured" in (version.path / "card.md").read_text()


def test_an_own_network_is_measured_on_a_data_set(tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((24, 24, 1)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(2)])
    version = publish(save_model(model, tmp_path), tmp_path / "models", dataset="xo")
    assert version.labels == ("X", "O")
    assert 0 < version.manifest.variants[0].test_accuracy < 1
    assert version.manifest.provenance.dataset == "xo"


@keras.saving.register_keras_serializable(package="tests")
class RetraceDependent(layers.Layer):
    """Computes a different function in each trace, so that the exported graph differs from the network."""

    traces = 0

    def call(self, x):
        RetraceDependent.traces += 1
        return x * RetraceDependent.traces


@keras.saving.register_keras_serializable(package="tests")
class AlwaysNoisy(layers.Layer):
    """Adds noise in inference as well."""

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x))


def test_a_network_that_fails_the_check_publishes_nothing(photos: Path, labels: Path, tmp_path: Path) -> None:
    path = save_model(network("softmax", RetraceDependent()), tmp_path)
    with pytest.raises(TrainingError, match=r"differs from the network: at batch size 1,.*(\.png|\.jpeg|\.webp)"):
        publish(path, tmp_path / "models", labels=labels, images=photos, scale=1 / 255)
    assert not (tmp_path / "models").exists()


def test_a_layer_that_onnx_cannot_express_is_reported(photos: Path, labels: Path, tmp_path: Path) -> None:
    path = save_model(network("softmax", AlwaysNoisy()), tmp_path)
    message = r"cannot express layer 'always_noisy' \(AlwaysNoisy\), which computes StatelessRandomNormalV2"
    with pytest.raises(TrainingError, match=message):
        publish(path, tmp_path / "models", labels=labels, images=photos)
    assert not (tmp_path / "models").exists()


def test_nothing_is_published_without_images_labels_or_disk_space(
    run: Run, photos: Path, labels: Path, tmp_path: Path
) -> None:
    path, models = save_model(network(), tmp_path), tmp_path / "models"
    with pytest.raises(TrainingError, match="needs real images: use --images FOLDER or --dataset NAME"):
        publish(path, models, labels=labels)
    with pytest.raises(TrainingError, match="have no names: use --labels FILE"):
        publish(path, models, images=photos)
    with pytest.raises(TrainingError, match="--shorter 20 is too small: 24 pixels"):
        publish(path, models, labels=labels, images=photos, shorter=20)
    with pytest.raises(TrainingError, match="is not a valid model name"):
        publish(run.folder, models, name="my model")
    assert not models.exists()


def test_a_wrong_data_set_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"The data set xo has 2 labels, but the network has 3 classes"):
        publish(save_model(network(), tmp_path), tmp_path / "models", dataset="xo")


def gates_and_skips() -> keras.Model:
    image = keras.Input(COLORS)
    skip = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(image))
    x = layers.Activation("swish")(layers.DepthwiseConv2D(3, padding="same")(skip))
    gate = layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Add()([layers.Multiply()([x, gate]), skip])
    x = layers.SeparableConv2D(12, 3, strides=2, activation="gelu")(layers.ZeroPadding2D(1)(x))
    x = layers.LayerNormalization()(layers.AveragePooling2D(2)(x))
    inner = keras.Sequential([layers.Flatten(), layers.Dropout(0.5), layers.Dense(CLASSES)])
    return keras.Model(image, inner(x))


def padding_before_pooling() -> keras.Model:
    """Returns a network that pads the output of a convolution without ReLU with zeros before max pooling. onnxruntime's
    Pad_Fusion computed wrong results for it, because values below zero are smaller than the padding."""
    image = keras.Input(COLORS)
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.Conv2D(8, 3)(image)))
    return keras.Model(image, layers.Dense(CLASSES)(layers.Flatten()(x)))


def normalizations() -> keras.Model:
    return network(None, layers.Normalization(mean=[1.0] * 8, variance=[4.0] * 8), layers.GroupNormalization(4))


def augmentation_inside() -> keras.Model:
    return keras.Sequential([keras.Input(COLORS), layers.RandomFlip(), layers.RandomTranslation(0.1, 0.1), network()])


@pytest.mark.parametrize("make", [gates_and_skips, padding_before_pooling, normalizations, augmentation_inside])
def test_layers_that_exports_break_on(
    make: Callable[[], keras.Model], photos: Path, labels: Path, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(3)
    path = save_model(make(), tmp_path)
    version = publish(path, tmp_path / "models", labels=labels, images=photos, scale=1 / 255)
    assert version.manifest.variants[0].parity.max_abs_difference <= 1e-5
