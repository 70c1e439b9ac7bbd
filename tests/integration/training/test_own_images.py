"""The user's own images: one command trains and one publishes; an invalid folder is rejected before any file is
written."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from service.model_store.manifest import SplitSpec, read_manifest
from tests.support.images import write_image_folder
from training.cli import main
from training.data.datasets.folder_test_split import split_digest
from training.data.load_dataset import DataOptions
from training.fit import trainer
from training.recipes import find_recipe
from training.recipes.settings import with_settings
from training.runs.run_folder import Run, latest_unfinished_run

TINY = ("--epochs", "40", "--set", "batch_size=8", "--set", "architecture.hidden=16,", "--set", "monitor=loss")


def convoy_train(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with photos of three classes, one of them damaged, and a run `colors` on it."""
    root = tmp_path_factory.mktemp("own")
    write_image_folder(root / "photos", "red", "green", "blue", count=30)
    (root / "photos" / "red" / "note.txt").write_text("not an image")
    folders = ("--runs-dir", root / "runs", "--data", root / "photos")
    lines = convoy_train("run", "mlp", *folders, "--name", "colors", "--skip-unreadable", *TINY).splitlines()
    assert lines[1] == "unreadable images skipped: 1, listed in run.json"
    assert lines[2].startswith("3 classes; images: ")
    assert "waiting for data" in lines[3]
    (folder,) = (root / "runs" / "colors").iterdir()
    assert lines[-1] == f"Next: convoy-train export {folder} --name colors"
    return root


@pytest.fixture(scope="module")
def run(root: Path) -> Run:
    [folder] = (root / "runs" / "colors").iterdir()
    return Run(folder)


def test_a_run_records_which_images_it_had(root: Path, run: Run) -> None:
    dataset = run.info()["dataset"]
    assert run.info()["labels"] == ["blue", "green", "red"]
    assert dataset["title"] == "Images of the folder 'photos'"
    counts = [dataset[f"{part}_images"] for part in ("training", "validation", "holdout", "test")]
    assert sum(counts) == 90
    assert counts[1:] == [10, 6, 15]  # 10% each of the images that are not test images, drawn independently
    assert dataset["origin"]["skipped"] == ["red/note.txt: The bytes are not an image, or its header is damaged."]
    test_files = dataset["origin"]["test_files"]
    assert all((root / "photos" / name).is_file() for name in test_files)
    assert [sum(name.startswith(label) for name in test_files) for label in run.info()["labels"]] == [3, 6, 6]
    for row in run.history():
        assert 0 <= row["input_stall"] <= 1
        assert row["images_per_s"] > 0
    assert run.metrics()["test"]["accuracy"] > 0.8


def test_a_version_has_the_preprocessing_of_its_measurement(root: Path, run: Run) -> None:
    convoy_train("export", run.folder, "--name", "colors", "--models-dir", root / "models")
    version = root / "models" / "colors" / "1"
    manifest = read_manifest(version)
    assert (manifest.preprocessing.resize, manifest.preprocessing.shorter) == ("shorter", 32)
    assert manifest.input.shape == (28, 28, 1)
    origin = run.info()["dataset"]["origin"]
    assert manifest.provenance.division == SplitSpec(
        validation=0.1,
        holdout=0.1,
        test_share=0.2,
        digest=split_digest(origin),
        seed=1,
        by_path=True,
        test_fingerprints=origin["test_fingerprints"],
    )
    assert manifest.variants[0].test_accuracy == run.metrics()["test"]["accuracy"]
    card = (version / "card.md").read_text()
    assert "convoy-train run mlp --seed 1" in card
    assert "--data FOLDER --name colors" in card
    assert str(root) not in card + json.dumps(manifest.model_dump(mode="json"))

    lines = convoy_train("evaluate", run.folder).splitlines()
    assert lines[0].startswith(f"accuracy {run.metrics()['test']['accuracy']:.4f} over 15 test images")
    write_image_folder(root / "new", "green", "red", count=4, seed=1)
    for source in (version, run.folder):
        lines = convoy_train("evaluate", source, "--data", root / "new").splitlines()
        assert lines[0].startswith("accuracy 1.0000 over 8 given images")
        assert "the network may have been trained" in lines[1]
        assert lines[2].split() == ["blue", "no", "images"]
    write_image_folder(root / "other", "red", count=1)
    (root / "other" / "red").rename(root / "other" / "purple")
    assert "has classes that the network does not have: purple" in convoy_train(
        "evaluate", version, "--data", root / "other", code=2
    )


CROPPED = ("--epochs", "3", "--set", "architecture.hidden=16,", "--set", "crop_area=0.5,1", "--set", "mixup=0.2")


@pytest.mark.slow
def test_workers_and_interruptions_change_no_weight(root: Path, tmp_path: Path) -> None:
    """The run uses random crops and mixed images and skips damaged images, and all of these must be reproducible."""
    recipe = with_settings(find_recipe("mlp"), dict(word.split("=", 1) for word in CROPPED[3::2]) | {"epochs": "3"})
    runs = []
    for workers in (0, 2):
        data_options = DataOptions(folder=root / "photos", skip_unreadable=True, workers=workers)
        runs.append(trainer.train(recipe, tmp_path, lambda line: None, data_options, "mixed"))

    def stop(line: str) -> None:
        if line.startswith("epoch 2/3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(recipe, tmp_path, stop, DataOptions(folder=root / "photos", skip_unreadable=True), "mixed")
    runs.append(trainer.resume(latest_unfinished_run(tmp_path, "mixed"), lambda line: None))
    first, *others = [keras.models.load_model(run.model_path).get_weights() for run in runs]
    for other in others:
        for array, other_array in zip(first, other, strict=True):
            np.testing.assert_array_equal(array, other_array)
    assert runs[0].metrics()["test"] == runs[1].metrics()["test"] == runs[2].metrics()["test"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "mlp", "--data", "missing"], "missing is not a folder; expected: one folder of images for each"),
        (["run", "mlp", "--data", "empty"], "empty has no folders of images; at least 2 are needed"),
        (
            ["run", "mlp", "--data", "photos"],
            "Images that cannot be read: 1. Repair or remove them, or add --skip-unreadable:\n  red/n",
        ),
        (["run", "mlp"], "needs a folder of images: specify it with --data"),
        (["run", "resnet1", "--data", "photos"], "did you mean 'resnet18'?"),
        (["run", "lenet5", "--data", "photos", "--skip-unreadable", "--set", "side_px=8"], "needs images of at least"),
        (
            ["run", "mlp", "--data", "photos", "--skip-unreadable", "--set", "validation=80"],
            "leave none of the 76 training images",
        ),
        (["run", "mlp", "--data", "photos", "--skip-unreadable", "--name", "a/b"], "'a/b' is not a valid run name"),
        (["run", "imagenette-resnet18"], "Imagenette is not downloaded automatically"),
    ],
)
def test_errors_end_before_anything_is_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.delenv("CONVOY_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").symlink_to(root / "photos")
    assert message in convoy_train(*words, code=2)
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "photos"}
