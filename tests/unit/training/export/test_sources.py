"""Sources of exports are opened with labels and data; other files are rejected with the reason."""

from pathlib import Path

import keras
import pytest
from keras import layers

from tests.unit.training.finished_runs import finished_run
from training.data.load_dataset import DataOptions
from training.errors import TrainingError
from training.export.keras_files import load_network
from training.export.sources import labels_for, open_source
from training.recipes import find_recipe
from training.runs.run_folder import start_run


def network() -> keras.Model:
    return keras.Sequential([keras.Input((24, 24, 1)), layers.Flatten(), layers.Dense(2)])


def test_a_file_with_a_data_set(tmp_path: Path) -> None:
    network().save(tmp_path / "mine.keras")
    source = open_source(tmp_path / "mine.keras", "xo", DataOptions(note="drawn"))
    assert source.name == "mine.keras"
    assert source.labels == ("X", "O")
    assert source.dataset.note == "drawn"
    assert source.recipe is None
    assert source.model.count_params() == network().count_params()


def test_a_compiled_network_is_opened_without_its_optimizer(tmp_path: Path) -> None:
    model = network()
    model.compile("adam", custom_loss)
    model.save(tmp_path / "mine.keras")
    assert open_source(tmp_path / "mine.keras", None).labels is None


def custom_loss(labels: object, logits: object) -> float:
    """A loss function that is not available when the file is loaded."""
    return 0.0


def test_a_finished_run(tmp_path: Path) -> None:
    recipe = find_recipe("xo")
    run = finished_run(tmp_path, recipe)
    network().save(run.model_path)
    source = open_source(run.folder, None)
    assert source.name == f"run xo/{run.folder.name}"
    assert source.recipe == recipe
    assert source.labels == ("cat", "dog", "ox")
    assert source.dataset.name == "xo"


def test_an_unfinished_run_states_how_to_finish_it(tmp_path: Path) -> None:
    run = start_run(tmp_path, find_recipe("xo"), {})
    with pytest.raises(TrainingError, match=r"has not finished. Resume it with: convoy-train run xo --resume .*xo"):
        open_source(run.folder, None)


def test_a_file_that_is_not_a_network_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"does not exist. Specify the folder of a run"):
        load_network(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(TrainingError, match=r"text\.keras cannot be loaded as a Keras model: "):
        load_network(tmp_path / "text.keras")


def test_a_network_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    image = keras.Input((24, 24, 1))
    keras.Model(image, layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "code.keras")
    with pytest.raises(TrainingError, match="cannot be loaded"):
        load_network(tmp_path / "code.keras")


def test_labels_come_from_the_file_first(tmp_path: Path) -> None:
    network().save(tmp_path / "mine.keras")
    source = open_source(tmp_path / "mine.keras", "xo")
    path = tmp_path / "labels.txt"
    path.write_text("cross \r\nring\r\n", encoding="utf-8")
    assert labels_for(source, path, 2) == ("cross", "ring")
    assert labels_for(source, None, 2) == ("X", "O")
    with pytest.raises(TrainingError, match=r"labels\.txt has 2 labels, but the network has 3 classes"):
        labels_for(source, path, 3)
    with pytest.raises(TrainingError, match="The data set xo has 2 labels"):
        labels_for(source, None, 3)
    with pytest.raises(TrainingError, match="2 classes have no names: use --labels FILE"):
        labels_for(open_source(tmp_path / "mine.keras", None), None, 2)
