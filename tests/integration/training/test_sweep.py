"""A sweep of real runs: one run is trained by its index, the rest by repeating the command, and all of them are
compared."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.images import write_image_folder
from training.cli import main
from training.runs.run_folder import Run


def sweep(*more: str) -> Result:
    words = ["sweep", "xo", "--grid", "lr=0.05,0.1", "--grid", "filters=2,;3,", "--epochs", "1", "--limit", "64"]
    return CliRunner().invoke(main, [*words, *more])


@pytest.fixture(autouse=True)
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    return tmp_path


def finished_runs() -> dict[str, Run]:
    return {path.parent.parent.name: Run(path.parent) for path in Path("runs").glob("*/*/metrics.json")}


GRID_LISTING = """\
0  learning_rate=0.05 architecture.filters=2,
1  learning_rate=0.05 architecture.filters=3,
2  learning_rate=0.1 architecture.filters=2,
3  learning_rate=0.1 architecture.filters=3,
"""


def test_the_list_is_printed_and_nothing_else_happens() -> None:
    result = sweep("--list")
    assert (result.exit_code, result.output) == (0, GRID_LISTING)
    assert not Path("runs").exists()


@pytest.mark.slow
def test_one_by_number_then_all_others_then_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    assert sweep().exit_code == 0
    assert sweep("--index", "1").exit_code == 0
    runs = finished_runs()
    assert sorted(runs) == ["xo-sweep-1", "xo-sweep-2"]
    recipe = runs["xo-sweep-2"].recipe()
    assert (recipe.learning_rate, recipe.architecture_options["filters"]) == (0.1, (2,))

    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    again = sweep()
    assert again.exit_code == 0, again.output
    assert again.output.count("has finished already") == 2
    assert again.output.count("test accuracy") == 2
    assert "convoy-train compare runs/xo-sweep-*/*" in again.output
    runs = finished_runs()
    assert sorted(runs) == [f"xo-sweep-{number}" for number in range(4)]

    compared = CliRunner().invoke(main, ["compare", *(str(run.folder) for run in runs.values())])
    assert compared.exit_code == 0, compared.output
    [rates] = [line for line in compared.output.splitlines() if line.startswith("| learning_rate")]
    assert [cell.strip() for cell in rates.split("|")[2:6]] == ["0.05", "0.05", "0.1", "0.1"]


def test_an_interrupted_run_continues_and_another_recipe_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("training.fit.trainer._finalize_run", interrupt)
        stopped = sweep("--index", "0")
    assert (stopped.exit_code, finished_runs()) == (130, {})
    assert "Run the same command again to resume." in stopped.output

    other = sweep("--index", "0", "--seed", "7")
    assert other.exit_code == 0
    assert "resumed" not in other.output
    resumed = sweep("--index", "0")
    assert resumed.exit_code == 0
    assert "resumed after epoch 1" in resumed.output
    assert len(list(Path("runs/xo-sweep-0").glob("*/recipe.json"))) == 2


def test_a_run_on_other_images_is_not_taken_for_one_of_this_sweep() -> None:
    words = ["sweep", "cifar-resnet20", "--grid", "lr=0.1", "--epochs", "1", "--set", "side_px=8", "--data"]
    for seed, folder in enumerate(("ours", "others")):
        write_image_folder(Path(folder), "red", "blue", count=20, seed=seed)
        result = CliRunner().invoke(main, [*words, folder])
        assert result.exit_code == 0, result.output
        assert "has finished already" not in result.output
    again = CliRunner().invoke(main, [*words, "ours"])
    assert "has finished already" in again.output
    assert len(list(Path("runs/cifar-resnet20-sweep-0").glob("*/recipe.json"))) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--index", "4"], "There is no run 4: the grid has 4 runs, 0 to 3."),
        (["--grid", "epochs=2,0"], "epochs is 0; it must be at least 1"),
        (["--grid", "lr=0.2"], "--grid contains learning_rate twice"),
    ],
)
def test_errors_are_reported_before_anything_is_trained(words: list[str], message: str) -> None:
    result = sweep(*words)
    assert result.exit_code == 2
    assert message in result.output
    assert not Path("runs").exists()


def test_an_invalid_number_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "first")
    result = sweep()
    assert result.exit_code == 2
    assert "JOB_COMPLETION_INDEX is 'first'" in result.output
