"""Averaging over the mirror image gives the same figures in a version's graph and in `evaluate --flip`."""

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from service.imaging.decode import decode
from service.imaging.preprocess import preprocess
from service.model_store.repository import Repository
from tests.integration.training.test_export_networks import answers, discard_log, network, publish, save_model
from tests.support.images import image_bytes
from training.analysis import describe, evaluate
from training.data.load_dataset import DataOptions
from training.errors import TrainingError
from training.fit import trainer
from training.recipes import find_recipe
from training.recipes.settings import with_settings


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(12):
        (folder / f"{index:02}.png").write_bytes(image_bytes(40 + index, 60 - index, 3, index, "PNG"))
    return folder


def test_the_graph_answers_with_the_mean_over_both_orientations(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    # The convolution is not symmetric, so that mirroring changes the result.
    keras_network = network(None, keras.layers.Conv2D(4, (1, 3), use_bias=False))
    path = save_model(keras_network, tmp_path)
    choices = {"labels": tmp_path / "labels.txt", "images": photos, "scale": 1 / 255, "outputs": "logits"}
    plain, flipped = (publish(path, tmp_path / "models", flip=flip, **choices) for flip in (False, True))

    encoded = [file.read_bytes() for file in sorted(photos.iterdir())]
    manifest = flipped.manifest
    pixels = np.stack(
        [preprocess(decode(data, 3, 255, 10**6), manifest.input, manifest.preprocessing) for data in encoded]
    )
    both = [keras.ops.softmax(keras_network(images / np.float32(255))) for images in (pixels, pixels[:, :, ::-1])]
    np.testing.assert_allclose(answers(flipped, encoded), np.mean(both, axis=0), atol=1e-6)
    np.testing.assert_allclose(answers(plain, encoded), both[0], atol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 1e-3

    [variant] = manifest.variants
    assert (manifest.flip_averaged, plain.manifest.flip_averaged) == (True, False)
    assert variant.parity.images == 1000
    assert variant.parity.graph_error is not None, "the reference is the network in float64"
    assert manifest.parameters == plain.manifest.parameters
    graphs = [onnx.load(version.graph_path(version.manifest.variants[0])) for version in (plain, flipped)]
    assert len({sum(node.op_type == "Conv" for node in graph.graph.node) for graph in graphs}) == 1
    assert "mean over the image and its mirror image" in (flipped.path / "card.md").read_text()
    assert "mirror image" not in (plain.path / "card.md").read_text()
    assert any("computed twice" in note for note in describe.describe(str(flipped.path)).notes)
    with pytest.raises(TrainingError, match="already averages over mirror images: leave out --flip"):
        list(evaluate.evaluate_source(flipped.path, "xo", DataOptions(), "float32", flip=True))


def test_evaluate_measures_runs_and_versions_on_both_orientations(tmp_path: Path) -> None:
    """A version with the mean in its graph has the same figures as `evaluate --flip` of its run and of a plain
    version."""
    recipe = with_settings(find_recipe("xo"), {"epochs": "1", "ema_decay": "0.5"})
    run = trainer.train(recipe, tmp_path / "runs", discard_log)
    plain, flipped = (publish(run.folder, tmp_path / "models", flip=flip, features=False) for flip in (False, True))
    lines = {
        (source, flip): list(evaluate.evaluate_source(source, None, DataOptions(), "float32", flip=flip))
        for source, flip in ((run.folder, True), (plain.path, True), (flipped.path, False), (plain.path, False))
    }
    of_graph, *_ = lines[flipped.path, False]
    for source in (run.folder, plain.path):
        first, *rest = lines[source, True]
        assert first == of_graph.replace("test images", "test images, each averaged with its mirror image")
        assert rest == lines[flipped.path, False][1:]
    assert lines[plain.path, False][0] != of_graph
    assert Repository(tmp_path / "models").open("mine", 2).manifest.flip_averaged
    card = (plain.path / "card.md").read_text()
    assert "The weights are those of epoch 1 of 1, as moving averages (decay 0.5 per step), with" in card
