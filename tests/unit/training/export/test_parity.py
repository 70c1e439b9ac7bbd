"""The parity check accepts a correct graph, and rejects wrong graphs with an error that names images."""

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import numpy_helper

from service.model_store.manifest import Input, Preprocessing
from tests.support.images import image_bytes, random_pixels
from training.data.datasets.base import ArraySplit
from training.errors import TrainingError
from training.export.graph.keras_to_onnx import to_onnx
from training.export.parity import ParitySample, check_parity, sample_folder, sample_split
from training.export.serving_pipeline import ServingPipeline

EXPECTS, PREPROCESSING, CLASSES = Input(height=6, width=5, channels=3), Preprocessing(), 4


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input(EXPECTS.shape, name="image")
    x = layers.Rescaling(1 / 255, -0.5)(image)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def graph(network: keras.Model) -> onnx.ModelProto:
    return to_onnx(network)


@pytest.fixture(scope="module")
def sample() -> ParitySample:
    images = np.stack([random_pixels(*EXPECTS.shape, seed=seed) for seed in range(100)])
    return sample_split(ArraySplit(images, np.zeros(100, np.int64)), EXPECTS, PREPROCESSING)


def path_of(graph: onnx.ModelProto, folder: Path) -> ServingPipeline:
    onnx.save(graph, folder / "model.onnx")
    return ServingPipeline(folder / "model.onnx", EXPECTS, PREPROCESSING, CLASSES)


def with_weights(graph: onnx.ModelProto, rank: int, change) -> onnx.ModelProto:
    """Returns the graph with changed weights: the only weights of this rank."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    [weights] = [i for i in changed.graph.initializer if len(i.dims) == rank]
    weights.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weights)), weights.name))
    return changed


def test_a_true_graph_passes(
    network: keras.Model, graph: onnx.ModelProto, sample: ParitySample, tmp_path: Path
) -> None:
    parity = check_parity(network, path_of(graph, tmp_path), sample)
    assert parity.images == 100
    assert parity.batch_sizes == [1, 7, 64]
    assert 0 < parity.max_abs_difference <= 1e-5


def test_a_slightly_wrong_graph_fails_and_names_the_worst_images(
    network: keras.Model, graph: onnx.ModelProto, sample: ParitySample, tmp_path: Path
) -> None:
    wrong = with_weights(graph, 4, lambda kernel: kernel * 1.001)
    with pytest.raises(
        TrainingError, match=r"differs from the network: at batch size 1, .* on \d+ of 100 images, most on test im"
    ) as e:
        check_parity(network, path_of(wrong, tmp_path), sample)
    assert str(e.value).count("test image") == 5
    assert "Nothing was published" in str(e.value)


def test_a_graph_that_ignores_its_input_fails(
    network: keras.Model, graph: onnx.ModelProto, sample: ParitySample, tmp_path: Path
) -> None:
    ignores_input = with_weights(graph, 2, np.zeros_like)
    with pytest.raises(TrainingError, match="differs from the network"):
        check_parity(network, path_of(ignores_input, tmp_path), sample)


def test_a_network_that_ignores_its_input_fails_though_its_graph_agrees(sample: ParitySample, tmp_path: Path) -> None:
    image = keras.Input(EXPECTS.shape, name="image")
    constant = layers.Dense(CLASSES, activation="softmax", kernel_initializer="zeros")(layers.Flatten()(image))
    network = keras.Model(image, constant)
    with pytest.raises(TrainingError, match="outputs for 100 images differ by at most 0: it ignores its input"):
        check_parity(network, path_of(to_onnx(network), tmp_path), sample)


def test_a_service_that_sees_other_pixels_fails(
    network: keras.Model, graph: onnx.ModelProto, sample: ParitySample, tmp_path: Path
) -> None:
    swapped = ParitySample(sample.names, sample.images, np.ascontiguousarray(sample.prepared[..., ::-1]))
    with pytest.raises(TrainingError, match="differs from the network"):
        check_parity(network, path_of(graph, tmp_path), swapped)


def test_outputs_that_are_not_numbers_fail(
    network: keras.Model, graph: onnx.ModelProto, sample: ParitySample, tmp_path: Path
) -> None:
    broken = with_weights(graph, 4, lambda kernel: kernel * np.nan)
    with pytest.raises(TrainingError, match="outputs cannot be used"):
        check_parity(network, path_of(broken, tmp_path), sample)


def test_a_sample_is_spread_over_the_split_and_decoded_by_the_service() -> None:
    images = np.stack([random_pixels(*EXPECTS.shape, seed=seed) for seed in range(10)])
    split = ArraySplit(images, np.zeros(10, np.int64))
    sample = sample_split(split, EXPECTS, PREPROCESSING, count=4)
    assert sample.names == ["test image 0", "test image 3", "test image 6", "test image 9"]
    np.testing.assert_array_equal(sample.images, images[[0, 3, 6, 9]])
    np.testing.assert_array_equal(sample.prepared, images[[0, 3, 6, 9]])


def test_images_of_another_size_are_prepared_for_both() -> None:
    split = ArraySplit(np.stack([random_pixels(20, 20, 3, seed=seed) for seed in range(3)]), np.zeros(3, np.int64))
    sample = sample_split(split, EXPECTS, PREPROCESSING)
    assert sample.images.shape == (3, *EXPECTS.shape)
    np.testing.assert_array_equal(sample.images, sample.prepared)


def test_few_images_in_a_folder_give_many_different_crops(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a.png").write_bytes(image_bytes(30, 40, 3, seed=1))
    (tmp_path / "below" / "b.JPG").write_bytes(image_bytes(17, 9, 3, seed=2, image_format="JPEG"))
    (tmp_path / "notes.txt").write_text("no image")
    sample = sample_folder(tmp_path, EXPECTS, PREPROCESSING, count=50)
    assert sample.names[:4] == ["a.png", "b.JPG", "crop 1 of a.png", "crop 1 of b.JPG"]
    assert sample.images.shape == (50, *EXPECTS.shape)
    assert len({image.tobytes() for image in sample.images}) > 40
    again = sample_folder(tmp_path, EXPECTS, PREPROCESSING, count=50)
    np.testing.assert_array_equal(sample.prepared, again.prepared)


def test_a_folder_without_images_and_a_broken_image_are_reported(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="contains no images"):
        sample_folder(tmp_path, EXPECTS, PREPROCESSING)
    (tmp_path / "torn.png").write_bytes(image_bytes(30, 40, 3)[:200])
    with pytest.raises(TrainingError, match=r"torn\.png is not a usable image: The image is damaged or truncated"):
        sample_folder(tmp_path, EXPECTS, PREPROCESSING)
