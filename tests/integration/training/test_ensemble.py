"""Ensembles: one graph computes the mean of several versions, is measured, and is rejected if members differ."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import version_converter

from service.inference.session import Session
from service.loaded_models.verify_version import verify
from service.model_store.checksums import sha256_of
from service.model_store.manifest import Activation, Preprocessing, SplitSpec, read_manifest, write_manifest
from service.model_store.repository import Repository
from tests.support.images import COLORS, write_image_folder
from tests.support.model_versions import write_version
from training.cli import main
from training.data.datasets.folder_listing import list_images
from training.data.datasets.folder_test_split import split_test_files

SHAPE = (24, 24, 1)
CROPPED = Preprocessing(resize="shorter", shorter=9)
PETS = ("models/pets/1", "models/pets/2", "--name", "pets-together")


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["ensemble", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns three random versions of `net` for X/O images. The third graph has a different opset."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 3):
        folder = write_version(tmp_path / "models", "net", number, SHAPE, 2, seed=number)
        manifest = read_manifest(folder)
        if number == 3:
            model = version_converter.convert_version(onnx.load(folder / "model.onnx"), 18)
            onnx.save(model, folder / "model.onnx")
        variant = manifest.variants[0].model_copy(
            update={"sha256": sha256_of(folder / "model.onnx"), "test_accuracy": 0.5}
        )
        provenance = manifest.provenance.model_copy(update={"dataset": "xo"})
        write_manifest(manifest.model_copy(update={"variants": [variant], "provenance": provenance}), folder)
    return tmp_path / "models"


def write_pets_versions(root: Path, provenance: dict[str, object] | None = None) -> None:
    """Writes two random versions of `pets` whose manifests name a folder with the classes in COLORS."""
    for number in (1, 2):
        folder = write_version(root, "pets", number, (8, 8, 3), 3, seed=number, preprocessing=CROPPED)
        (folder / "labels.txt").write_text("".join(f"{label}\n" for label in COLORS))
        manifest = read_manifest(folder)
        labels = manifest.labels.model_copy(update={"sha256": sha256_of(folder / "labels.txt")})
        provenance_update = manifest.provenance.model_copy(update={"dataset": "folder", **(provenance or {})})
        write_manifest(manifest.model_copy(update={"labels": labels, "provenance": provenance_update}), folder)


def answers(root: Path, name: str, version: int, images: np.ndarray) -> np.ndarray:
    folder = Repository(root).open(name, version)
    [variant] = folder.manifest.variants
    return Session(folder.graph_path(variant), folder.manifest.input, folder.manifest.classes, 1).run(images)


def test_an_ensemble_returns_the_mean_and_records_its_accuracy(root: Path) -> None:
    code, output = run("models/net/1", "models/net/2", "models/net/3", "--name", "together")
    assert code == 0, output
    assert "net/2: test accuracy 0.5000" in output
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
    members = [answers(root, "net", number, images) for number in (1, 2, 3)]
    assert np.ptp(members, axis=0).max() > 0.3
    np.testing.assert_allclose(answers(root, "together", 1, images), np.mean(members, axis=0), atol=1e-6)
    manifest = Repository(root).open("together", 1).manifest
    assert f"together: test accuracy {manifest.variants[0].test_accuracy:.4f} over 1000 images" in output
    assert manifest.provenance.source == "the mean of net/1, net/2, net/3"
    assert all(finding.is_ok for finding in verify(Repository(root), "together", 1))
    card = (root / "together/1/card.md").read_text()
    assert "convoy-train ensemble models/net/1 models/net/2 models/net/3 --name together" in card


@pytest.mark.parametrize(("activation", "classes"), [("sigmoid", 3), ("binary", 2)])
def test_an_ensemble_of_sigmoids_keeps_its_kind_of_answers(
    tmp_path: Path, activation: Activation, classes: int
) -> None:
    root = tmp_path / "models"
    for number in (1, 2):
        write_version(root, "tags", number, (8, 8, 3), classes, seed=number, activation=activation)
    photos = write_image_folder(tmp_path / "photos", *COLORS, count=4)
    members = (root / "tags/1", root / "tags/2")
    code, output = run(*members, "--name", "both", "--images", photos, "--models-dir", root)
    assert code == 0, output
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    rows = [answers(root, "tags", number, images) for number in (1, 2)]
    np.testing.assert_allclose(answers(root, "both", 1, images), np.mean(rows, axis=0), atol=1e-6)
    assert Repository(root).open("both", 1).manifest.activation == activation
    assert all(finding.is_ok for finding in verify(Repository(root), "both", 1))


def test_an_ensemble_can_be_a_member(root: Path) -> None:
    assert run("models/net/1", "models/net/2", "--name", "two")[0] == 0
    assert run("models/two/1", "models/net/3", "--name", "more")[0] == 0
    images = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)
    one, two, three = (answers(root, "net", number, images) for number in (1, 2, 3))
    np.testing.assert_allclose(answers(root, "more", 1, images), ((one + two) / 2 + three) / 2, atol=1e-6)


def test_members_of_own_images_are_measured_on_a_folder(root: Path, tmp_path: Path) -> None:
    write_pets_versions(root)
    write_image_folder(tmp_path / "photos", *COLORS, count=4)
    code, output = run(*PETS, "--data", "photos")
    assert code == 0, output
    manifest = Repository(root).open("pets-together", 1).manifest
    assert f"together: accuracy {manifest.metrics['check_accuracy']:.4f} over 12 images, on some of which" in output
    assert manifest.variants[0].test_accuracy is None
    assert manifest.preprocessing == CROPPED
    assert manifest.provenance.dataset == "folder"
    card = (root / "pets-together/1/card.md").read_text()
    assert "of the 12 given images" in card
    assert "--name pets-together --data FOLDER" in card


def test_members_that_kept_the_same_images_for_the_test_are_measured_on_those(root: Path, tmp_path: Path) -> None:
    write_pets_versions(root, {"seed": 8, "division": SplitSpec(validation=0.1, test_share=0.3, seed=3)})
    photos = write_image_folder(tmp_path / "photos", *COLORS, count=20)
    _, test = split_test_files(list_images(photos).train, 0.3, seed=3)
    for name in {path.relative_to(photos).as_posix() for path in photos.rglob("*.*")} - set(test.paths):
        (photos / name).write_bytes(b"learnt: not looked at")
    code, output = run(*PETS, "--data", "photos")
    assert (code, f"over {len(test)} images" in output) == (0, True), output
    assert Repository(root).open("pets-together", 1).manifest.variants[0].test_accuracy is not None


def test_members_that_kept_other_images_for_the_test_are_measured_on_all(root: Path, tmp_path: Path) -> None:
    write_pets_versions(root, {"seed": 3, "division": SplitSpec(validation=0.1, test_share=0.3)})
    second = root / "pets" / "2"
    manifest = read_manifest(second)
    provenance = manifest.provenance.model_copy(update={"seed": 4})
    write_manifest(manifest.model_copy(update={"provenance": provenance}), second)
    write_image_folder(tmp_path / "photos", *COLORS, count=20)
    code, output = run(*PETS, "--data", "photos")
    assert (code, "over 60 images, on some of which" in output) == (0, True), output
    assert Repository(root).open("pets-together", 1).manifest.metrics["check_images"] == 60


def test_the_val_folder_is_the_test_set(root: Path, tmp_path: Path) -> None:
    write_pets_versions(root)
    write_image_folder(tmp_path / "photos" / "train", *COLORS, count=4)
    write_image_folder(tmp_path / "photos" / "val", *COLORS, count=2)
    code, output = run(*PETS, "--data", "photos")
    assert (code, "over 6 images" in output) == (0, True), output
    assert Repository(root).open("pets-together", 1).manifest.variants[0].test_accuracy is not None


def test_images_without_labels_check_and_measure_nothing(root: Path, tmp_path: Path) -> None:
    write_pets_versions(root)
    write_image_folder(tmp_path / "photos", *COLORS, count=4)
    code, output = run(*PETS, "--images", "photos")
    assert code == 0, output
    assert "together: test accuracy" not in output
    manifest = Repository(root).open("pets-together", 1).manifest
    assert (manifest.variants[0].test_accuracy, manifest.provenance.dataset) == (None, None)
    assert manifest.variants[0].parity.images == 1000


def test_an_invalid_folder_is_reported(root: Path, tmp_path: Path) -> None:
    write_pets_versions(root)
    write_image_folder(tmp_path / "photos", *COLORS, count=4)
    (tmp_path / "photos" / "red" / "note.txt").write_text("not an image")
    for words, message in (
        ([], "The members were trained on a folder of images: specify it with --data, or use --images FOLDER"),
        (["--data", "photos"], "cannot be read: 1. Repair or remove them, or add --skip-unreadable:\n  red/note.txt: "),
    ):
        code, output = run(*PETS, *words)
        assert (code, message in output) == (2, True), output
    code, output = run(*PETS, "--data", "photos", "--skip-unreadable")
    assert (code, "over 12 images" in output) == (0, True), output


def change_labels(folder: Path) -> None:
    (folder / "labels.txt").write_text("this\nthat\n")
    manifest = read_manifest(folder)
    labels = manifest.labels.model_copy(update={"sha256": sha256_of(folder / "labels.txt")})
    write_manifest(manifest.model_copy(update={"labels": labels}), folder)


def change_preprocessing(folder: Path) -> None:
    preprocessing = Preprocessing(interpolation="nearest", background=0)
    write_manifest(read_manifest(folder).model_copy(update={"preprocessing": preprocessing}), folder)


def corrupt_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"changed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_labels, "net/2 has different labels than net/1. All members must agree"),
        (change_preprocessing, "net/2 has different preprocessing"),
        (corrupt_graph, "has sha256"),
    ],
)
def test_members_that_differ_are_rejected(root: Path, change, message: str) -> None:
    change(root / "net" / "2")
    code, output = run("models/net/1", "models/net/2", "--name", "together")
    assert (code, message in output, output.count("\n")) == (2, True, 1)
    assert not (root / "together").exists()


def test_errors_are_reported_in_a_sentence(root: Path) -> None:
    write_version(root, "small", 1, (8, 8, 1), 2)
    for words, message in (
        (["models/net/1"], "needs at least two members"),
        (["models/net/1", "models"], "is not a version's folder"),
        (["models/net/1", "models/small/1"], "small/1 has a different input than net/1"),
        (
            ["models/small/1", "models/small/1"],
            "have no data set in common: use --dataset or --data FOLDER, or --images FOLDER",
        ),
    ):
        code, output = run(*words, "--name", "together")
        assert (code, message in output, output.count("\n")) == (2, True, 1), output
