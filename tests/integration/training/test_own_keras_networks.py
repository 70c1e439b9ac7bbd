"""The network of common tutorials is exported: a Keras network whose pixels are divided by 255 outside it, and a folder
of images."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

from service.cli import cli as convoy
from service.model_store.manifest import read_manifest
from tests.support.images import COLORS, noisy_image, write_image_folder
from training.cli import main
from training.data.datasets.base import ArraySplit, Dataset

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a network that distinguishes colors, for pixels from 0 to 1, and photos in these colors."""
    root = tmp_path_factory.mktemp("tutorial")
    write_image_folder(root / "photos", *CLASSES, count=12)
    nearest = layers.Dense(3)
    model = keras.Sequential([keras.Input((24, 24, 3)), layers.GlobalAveragePooling2D(), nearest])
    means = np.array([COLORS[name] for name in CLASSES]) / 255
    nearest.set_weights([40 * means.T, -20 * (means**2).sum(axis=1)])
    model.save(root / "colors.keras")
    return root


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns an empty working folder with links to the network and the photos."""
    for name in ("photos", "colors.keras"):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def convoy_train(command: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, shlex.split(command))
    assert result.exit_code == code, result.output
    return result.output


def test_pixels_that_are_scaled_outside_the_network_are_noticed(folder: Path) -> None:
    output = convoy_train("export colors.keras --name colors --data photos", code=2)
    assert "accuracy 33.3% on 36 of the images, but 100.0% with --scale 1/255" in output
    assert "Use these flags, or --force" in output
    assert not (folder / "models").exists()
    forced = convoy_train("export colors.keras --name colors --data photos --scale 1/255 --mean 0.5 --force")
    assert "warning: accuracy" in forced
    assert read_manifest(folder / "models/colors/1").metrics["check_accuracy"] < 0.9


def test_a_network_for_bgr_is_noticed_and_exported(folder: Path) -> None:
    """OpenCV reads images in this order."""
    random = np.random.default_rng(0)
    for name, color in (("sea", (60, 100, 200)), ("sunset", (200, 100, 60))):
        Path("views", name).mkdir(parents=True)
        for number in range(10):
            noisy_image(color, random).save(f"views/{name}/{number}.png")
    image = keras.Input((24, 24, 3))
    means = layers.GlobalAveragePooling2D()(image)
    bluer_or_redder = layers.Dense(2, activation="softmax")
    model = keras.Model(image, bluer_or_redder(means))
    bluer_or_redder.set_weights([np.array([[10, -10], [0, 0], [-10, 10]]), np.zeros(2)])
    model.save("bgr.keras")
    command = "export bgr.keras --name views --data views --scale 1/255"
    assert "100.0% with --scale 1/255 --channels bgr: the network seems to expect" in convoy_train(command, code=2)
    output = convoy_train(f"{command} --channels bgr")
    assert "), BGR; pixels: pixel * 1/255" in output
    assert "accuracy 1.0000" in output


def test_without_labels_unscaled_pixels_get_a_warning(folder: Path) -> None:
    (folder / "labels.txt").write_text("\n".join(CLASSES))
    output = convoy_train("export colors.keras --name colors --images photos --labels labels.txt", code=2)
    assert "warning: the network gets pixels from 0 to 255" in output
    assert "expects pixels in another range" in output


def test_given_images_are_not_called_a_test_set(folder: Path) -> None:
    output = convoy_train("export colors.keras --name colors --data photos --scale 1/255")
    assert (
        "input 24x24 (height x width; both sides scaled to it), RGB; pixels: pixel * 1/255; 3 classes; softm" in output
    )
    assert "accuracy 1.0000 over 36 images, on some of which the network may have been trained" in output
    assert "test accuracy" not in output
    manifest = read_manifest(folder / "models/colors/1")
    assert manifest.variants[0].test_accuracy is None
    assert manifest.metrics == {"check_accuracy": 1.0, "check_images": 36}
    listed = CliRunner().invoke(convoy, ["models", "list"]).output
    assert listed == "colors 1: 24x24x3 -> 3 classes, accuracy 100.00% on 36 given images\n"
    card = (folder / "models/colors/1/card.md").read_text()
    assert "**100.00%** of the 36 given images (0 wrong)" in card
    assert "The network may have been trained on these images." in card
    assert "test" not in card.split("## Accuracy")[1].split("## ")[0]
    assert "These are all images of the folder" in convoy_train("evaluate models/colors/1 --data photos")


def test_a_folder_with_val_has_a_test_set(folder: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_image_folder(tmp_path / "split" / part, *CLASSES, count=4, seed=len(part))
    output = convoy_train("export colors.keras --name colors --data split --scale 1/255")
    assert "test accuracy 1.0000 over 12 images" in output
    assert read_manifest(folder / "models/colors/1").variants[0].test_accuracy == 1.0


def test_a_network_of_any_size_takes_its_size_from_a_data_set(folder: Path) -> None:
    model = keras.models.load_model("colors.keras")
    image = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 255)(image)
    for layer in model.layers:
        x = layer(x)
    keras.Model(image, x).save("any.keras")
    output = convoy_train("export any.keras --name colors --data photos --size 20x24")
    assert "accuracy 1.0000" in output
    assert read_manifest(Path("models/colors/1")).input.shape == (20, 24, 3)
    assert "choose one with --size 224" in convoy_train("export any.keras --name colors --data photos", code=2)


def test_the_card_s_command_repeats_the_export(folder: Path) -> None:
    options = f"--data photos --scale 1/255 --shorter 30 --labels {folder / 'labels.txt'} --models-dir elsewhere"
    (folder / "labels.txt").write_text("\n".join(CLASSES))
    convoy_train(f"export colors.keras --name colors {options}")
    card = (folder / "elsewhere/colors/1/card.md").read_text()
    (command,) = re.findall(r"^convoy-train (export .*)$", card, re.MULTILINE)
    assert command == "export colors.keras --name colors --data photos --scale 1/255 --shorter 30 --labels labels.txt"
    convoy_train(command)
    first, second = (read_manifest(Path(models, "colors/1")) for models in ("elsewhere", "models"))
    assert first.metrics == second.metrics
    assert first.preprocessing == second.preprocessing


def test_a_data_set_states_whether_it_is_a_test_set() -> None:
    split = ArraySplit(np.zeros((2, 1, 1, 1), np.uint8), np.zeros(2, np.int64))
    dataset = Dataset("pets", "Pets", ("cat",), split, split)
    assert dataset.describe_accuracy(0.5, 2) == "test accuracy 0.5000 over 2 images"


@pytest.mark.slow
def test_a_terminal_shows_no_message_of_tensorflow(folder: Path) -> None:
    command = [Path(sys.executable).with_name("convoy-train"), "export", "colors.keras", "--name", "colors"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    process = subprocess.run(
        [*command, "--data", "photos", "--scale", "1/255"], env=environment, capture_output=True, text=True, check=True
    )
    assert process.stderr == "Next: convoy serve --models models\n"
