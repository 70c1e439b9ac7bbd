"""The card agrees with the manifest and the run, and its commands reproduce the recipe."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.model_store.manifest import File, Input, Manifest, Parity, Preprocessing, Provenance, Variant
from tests.unit.training.finished_runs import finished_run
from training import cli
from training.data.datasets.base import Dataset
from training.export.acceptance import Decision
from training.export.model_card import CardData, training_command, write_card
from training.export.sources import Source
from training.fit.scores import Scores
from training.recipes import RECIPES, find_recipe
from training.recipes.settings import with_settings

LABELS = ("cat", "dog", "ox")
SCORES = Scores(250, 0.75, 0.625, [[60, 40, 0], [20, 70, 10], [0, 0, 50]], [0.6, 0.7, 1.0])
DATASET = Dataset("pets", "Pets on sofas", LABELS, None, None, note="a JPEG copy", limitations="Only sofas.")


def manifest(**changes: object) -> Manifest:
    parity = Parity(images=1000, batch_sizes=[1, 7, 64], max_abs_difference=2.5e-7)
    variant = Variant(file="model.onnx", sha256="0" * 64, precision="float32", bytes=1_250_000, parity=parity)
    provenance = Provenance(
        source="pets.keras", created_utc="2026-01-02T03:04:05+00:00", architecture="net", libraries={"keras": "3.15.1"}
    )
    fields = {
        "input": Input(height=32, width=48, channels=3),
        "classes": 3,
        "labels": File(file="labels.txt", sha256="0" * 64),
        "parameters": 12_345,
        "variants": [variant],
        "provenance": provenance,
    }
    return Manifest(**fields | changes)


def card(folder: Path, **changes: object) -> str:
    source = Source("pets.keras", model=None, dataset=DATASET)
    data = CardData("pets", 3, manifest(), LABELS, source, SCORES)
    write_card(folder, replace(data, **changes))
    return (folder / "card.md").read_text()


def test_a_card_states_accuracy_data_and_limits(tmp_path: Path) -> None:
    (tmp_path / "confusion.png").write_bytes(b"")
    text = card(tmp_path)
    for expected_text in (
        "# pets, version 3",
        "12,345 parameters, 1.25 MB",
        "RGB images of 48x32 pixels",
        "3 classes (cat, dog, ox)",
        "**75.00%** of the 250 test images (62 wrong), cross entropy 0.6250",
        "| dog | 70.00% |",
        "Most frequent mistakes: cat predicted as dog (40), dog predicted as cat (20), dog predicted as ox (10).",
        "On 1,000 images, at batch sizes 1, 7, 64",
        "2.5e-07",
        "**Note on these files:** a JPEG copy.",
        "- Only sofas.",
        "squeezed to 48x32 (bilinear)",
        "![confusion matrix](confusion.png)",
        "convoy-train export pets.keras --name pets",
        "keras 3.15.1",
    ):
        assert expected_text in text
    assert "curves.png" not in text


def test_a_card_states_on_which_images_a_retrained_network_was_accepted(tmp_path: Path) -> None:
    decision = Decision("holdout", 1500, "pets/2", 0.75, 0.7475, 0.005)
    text = card(tmp_path, decision=decision)
    assert (
        "after a comparison with pets/2, on images on which neither network was trained: 74.75% of 1,500 held-out "
        "images correct, pets/2 75.00%; a drop of 0.50 percentage points was allowed. The test images had no "
        "influence on the "
    ) in text
    text = card(tmp_path, decision=replace(decision, part="test"))
    assert "The accuracy on the test images is therefore slightly too high on average." in text


def test_a_card_does_not_claim_what_was_not_measured(tmp_path: Path) -> None:
    text = card(tmp_path, scores=None, source=Source("pets.keras", model=None))
    assert "Not measured" in text
    assert "did not know the training data" in text
    assert "75" not in text
    assert "confusion" not in text


def test_many_classes_are_not_all_listed_in_the_first_sentence(tmp_path: Path) -> None:
    labels = tuple(f"kind {number}" for number in range(1000))
    text = card(tmp_path, labels=labels, manifest=manifest(classes=1000), scores=None)
    assert "1000 classes (kind 0, kind 1, kind 2, ...)" in text


def test_cropping_is_reported(tmp_path: Path) -> None:
    preprocessing = Preprocessing(resize="shorter", shorter=64, interpolation="bicubic")
    assert "scaled to a shorter side of 64 and cropped to 48x32 (bicubic)" in card(
        tmp_path, manifest=manifest(preprocessing=preprocessing)
    )


def test_a_card_contains_the_recipe_the_split_and_the_settings_of_its_run(tmp_path: Path) -> None:
    recipe = with_settings(find_recipe("mnist-lenet5"), {"epochs": "2", "limit": "600"})
    (tmp_path / "curves.png").write_bytes(b"")
    text = card(tmp_path, source=Source("run x", None, LABELS, DATASET, finished_run(tmp_path / "runs", recipe)))
    for expected_text in (
        "Training took 4 s on 2 cores of Xeon and 2 cores of EPYC: 250 images/s (median of the epochs).",
        "Trained on 500 images. Of the training set, 100 others",
        "those of epoch 2 of 2, with 60.00% on the validation images. At most 600 images of each split",
        "| epochs | 2 |",
        "| architecture_options | activation=relu |",
        "convoy-train run mnist-lenet5 --seed 1 --set warm_up_epochs=0.2 --set epochs=2 --set limit=600\n",
        "convoy-train export runs/mnist-lenet5/UTC-TIME --name pets",
        "![loss and accuracy over the epochs](curves.png)",
    ):
        assert expected_text in text


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"epochs": "3", "flip": "true", "mean": "0.5,0.25,0.125", "std": "1,2,3", "limit": "70"},
        {"architecture.activation": "tanh", "architecture.hidden": "30,20", "schedule": "step", "milestones": "2,4"},
        {"architecture.hidden": "30,"},
    ],
)
def test_the_command_of_a_recipe_gives_that_recipe(settings: dict[str, str]) -> None:
    recipe = with_settings(RECIPES["mnist-lenet5"], settings | {"seed": "7"})
    words = shlex.split(training_command(recipe))
    assert words[:3] == ["convoy-train", "run", "mnist-lenet5"]
    parsed = cli.run.run.make_context("run", words[2:]).params
    changes = cli.run.parse_changes(parsed["settings"], {"seed": parsed["seed"]})
    assert with_settings(RECIPES[parsed["recipe"]], changes) == recipe


def test_the_examples_of_the_help_are_real_commands() -> None:
    for name, command in cli.main.commands.items():
        result = CliRunner().invoke(cli.main, [name, "--help"])
        assert result.exit_code == 0
        lines = re.sub(r"\\\n\s*", "", result.output).splitlines()  # long examples continue on the next line
        examples = [line.strip() for line in lines if line.strip().startswith("convoy-train")]
        assert examples, name
        for example in examples:
            words = shlex.split(example)
            assert words[:2] == ["convoy-train", name]
            command.make_context(name, words[2:])
