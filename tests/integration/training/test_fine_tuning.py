"""Fine-tuning has a frozen and an unfrozen phase and can be resumed at every epoch; its result can be served."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tests.support.images import image_bytes
from tests.unit.training.architectures.test_keras_applications import base_of, legacy_weights_file
from training.architectures.keras_applications import APPLICATIONS, TF
from training.data.load_dataset import DataOptions, for_resuming
from training.errors import TrainingError
from training.export.exporter import export, options_for
from training.export.keras_files import load_network
from training.export.sources import Source
from training.fit import trainer
from training.recipes import find_recipe
from training.recipes.base import Recipe
from training.recipes.settings import with_application, with_settings
from training.runs import run_folder
from training.runs.run_folder import Run

SETTINGS = {
    "side_px": "32",
    "frozen_epochs": "1",
    "epochs": "3",
    "validation": "4",
    "batch_size": "8",
    "unfrozen_rate": "0.01",
    "test_share": "0.3",
}


def tiny(
    include_top: bool, weights: str | None, pooling: str, input_tensor: object, input_shape: object
) -> keras.Model:
    """Returns an application for tests: a convolution, batch normalization and global pooling."""
    x = layers.Conv2D(4, 3, strides=4, name="conv")(input_tensor)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization(name="norm")(x)))
    return keras.Model(keras.utils.get_source_inputs(input_tensor), x)


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Registers the tiny application in Keras' and Convoy's tables. Yields a file with its weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "Tiny", tiny, raising=False)
        patch.setitem(APPLICATIONS, "Tiny", TF)
        image = keras.Input((32, 32, 3))
        base = tiny(False, None, "avg", image, image.shape[1:])
        base.get_layer("norm").moving_mean.assign([0.1, 0.2, 0.3, 0.4])
        yield legacy_weights_file(base, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with two classes of random images."""
    root = tmp_path_factory.mktemp("images")
    for index in range(40):
        kind = root / ("even", "odd")[index % 2]
        kind.mkdir(exist_ok=True)
        (kind / f"{index}.png").write_bytes(image_bytes(40, 36, 3, index, "PNG"))
    return root


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    extras = {"ema_decay": "0.5", "schedule": "plateau", "plateau_epochs": "1", "keep": "last", "patience": "9"}
    return with_settings(with_application("keras:Tiny", find_recipe("fine-tune")), SETTINGS | extras)


@pytest.fixture(scope="module")
def uninterrupted_run(
    tiny_base: Path, folder: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, list]:
    lines: list[str] = []
    data_options = DataOptions(folder=folder)
    run = trainer.train(
        recipe, tmp_path_factory.mktemp("runs"), lines.append, data_options, weights=tiny_base, tensorboard=True
    )
    return run, lines


def weights(run: Run) -> dict[str, np.ndarray]:
    return {w.path: np.array(w) for w in keras.models.load_model(run.model_path).weights}


def test_the_phases_are_reported_and_have_their_rates(uninterrupted_run: tuple[Run, list]) -> None:
    run, lines = uninterrupted_run
    _, images, first, one, second, averages, *others = lines
    assert images.startswith("2 classes; images: 23 for training")
    assert (first, second) == ("epochs 1 to 1: only the last layer is trained", "epochs 2 to 3: all layers are trained")
    assert one.startswith("epoch 1/3")
    assert averages == "moving averages of the weights are validated and kept, with a decay of 0.5 per step"
    assert [line[:9] for line in others] == ["epoch 2/3", "epoch 3/3", "test accu"]
    rates = [row["learning_rate"] for row in run.history()]
    assert rates[:2] == pytest.approx([1e-3, 1e-2])
    assert run.info()["initial_weights"] == "weights_no_top.h5"


def test_statistics_of_imagenet_are_kept_and_the_rest_is_trained(
    uninterrupted_run: tuple[Run, list], tiny_base: Path
) -> None:
    weights_before = weights(uninterrupted_run[0])
    np.testing.assert_allclose(weights_before["norm/moving_mean"], [0.1, 0.2, 0.3, 0.4])
    image = keras.Input((32, 32, 3))
    base = tiny(False, None, "avg", image, image.shape[1:])
    base.load_weights(tiny_base)
    assert (weights_before["conv/kernel"] != np.array(base.get_layer("conv").kernel)).any()


@pytest.mark.parametrize(
    "stop_after",
    [pytest.param("run ", marks=pytest.mark.slow), "epoch 1/3", pytest.param("epoch 2/3", marks=pytest.mark.slow)],
)
def test_a_run_stopped_in_any_phase_resumes_to_the_same_result(
    uninterrupted_run: tuple[Run, list], tiny_base: Path, folder: Path, recipe: Recipe, tmp_path: Path, stop_after: str
) -> None:
    """Resuming needs no pretrained weights, because the first checkpoint contains them."""

    def stop(line: str) -> None:
        if line.startswith(stop_after):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(recipe, tmp_path, stop, DataOptions(folder=folder), weights=tiny_base, tensorboard=True)
    interrupted_run = run_folder.latest_unfinished_run(tmp_path, recipe.name)
    trainer.resume(interrupted_run, lambda line: None, tensorboard=True)
    expected = weights(uninterrupted_run[0])
    for path, array in weights(interrupted_run).items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)
    [events] = interrupted_run.tensorboard_path.iterdir()
    assert events.stat().st_size > 0


def test_images_grow_within_the_phases(tiny_base: Path, folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    recipe = with_settings(recipe, {"progressive_side_px": "24,32", "epochs": "4"})
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2/4"):
            raise KeyboardInterrupt

    data_options = DataOptions(folder=folder)
    whole = trainer.train(recipe, tmp_path / "whole", lambda line: None, data_options, weights=tiny_base)
    assert [row["side_px"] for row in whole.history()] == [24, 24, 32, 32]
    with pytest.raises(KeyboardInterrupt):
        trainer.train(recipe, tmp_path / "stopped", stop, data_options, weights=tiny_base)
    assert "epochs 2 to 2: training images of 24 pixels" in lines
    run = run_folder.latest_unfinished_run(tmp_path / "stopped", recipe.name)
    trainer.resume(run, lambda line: None)
    expected = weights(whole)
    for path, array in weights(run).items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


def test_a_run_that_has_lost_the_weights_it_started_from_does_not_continue_from_others(
    tiny_base: Path, folder: Path, recipe: Recipe, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(recipe, tmp_path, stop, DataOptions(folder=folder), weights=tiny_base)
    interrupted_run = run_folder.latest_unfinished_run(tmp_path, recipe.name)
    interrupted_run.checkpoint_path.unlink()
    with pytest.raises(TrainingError, match=r"initial weights of .* are missing .*start a new run"):
        trainer.resume(interrupted_run, lambda line: None)
    assert not interrupted_run.is_finished


def test_a_run_without_its_first_weights_is_removed(
    tiny_base: Path, folder: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise TrainingError("No space left on device")

    monkeypatch.setattr("training.runs.checkpoint.save", full)
    with pytest.raises(TrainingError, match="No space left"):
        trainer.train(recipe, tmp_path, lambda line: None, DataOptions(folder=folder), weights=tiny_base)
    assert run_folder.all_runs(tmp_path, recipe.name) == []


def test_weights_for_a_network_of_ours_are_rejected(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"--weights is for Keras Applications networks"):
        trainer.train(find_recipe("xo"), tmp_path, lambda line: None, weights=tmp_path / "x.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def photos(data_dir: Path, tmp_path: Path) -> Path:
    """Returns a few photos of three classes of Imagenette, in ImageNet's layout."""
    for split, count in (("train", 16), ("val", 6)):
        for kind in sorted((data_dir / "imagenette2-160" / split).iterdir())[:3]:
            (tmp_path / "photos" / split / kind.name).mkdir(parents=True)
            for path in sorted(kind.iterdir())[:count]:
                shutil.copy(path, tmp_path / "photos" / split / kind.name)
    return tmp_path / "photos"


@pytest.mark.slow
def test_a_small_application_goes_from_its_file_to_the_service(photos: Path, tmp_path: Path) -> None:
    weights_file = legacy_weights_file(base_of("MobileNetV3Small"), tmp_path)
    settings = SETTINGS | {"epochs": "2"}
    recipe = with_settings(with_application("keras:MobileNetV3Small", find_recipe("fine-tune")), settings)
    run = trainer.train(recipe, tmp_path / "runs", lambda line: None, DataOptions(folder=photos), weights=weights_file)
    assert run.metrics()["test"]["images"] == 18
    dataset = for_resuming(run, DataOptions())
    source = Source("run of a test", load_network(run.model_path), dataset.labels, dataset, run)
    version = export(source, options_for(source, name="pets", models_dir=tmp_path / "models"), lambda line: None)
    card = (version / "card.md").read_text()
    assert "Architecture `keras:MobileNetV3Small`" in card
    assert "It starts from the weights in `weights_no_top.h5`." in card
