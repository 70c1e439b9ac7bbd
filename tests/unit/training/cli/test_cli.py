"""The command line: mistakes end with one sentence, and help needs no Keras."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.images import write_image_folder
from training.cli import main
from training.recipes import RECIPES
from training.recipes.own_images import ARCHITECTURE_NAMES


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_help_imports_neither_keras_nor_onnx() -> None:
    program = (
        "import sys; from training.cli import main\n"
        "for words in (['--help'], ['run', '--help'], ['export', '--help'], ['list']):\n"
        "    main(words, standalone_mode=False)\n"
        "heavy = {'keras', 'tensorflow', 'jax', 'onnx', 'onnxruntime', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_list_shows_every_recipe_and_network() -> None:
    code, output = run("list")
    assert code == 0
    *recipes, networks = output.splitlines()
    assert [line.split()[0] for line in recipes] == list(RECIPES)
    assert "--data FOLDER" in networks
    assert set(networks.partition(": ")[2].split(", ")) | set(RECIPES) == {*RECIPES, *ARCHITECTURE_NAMES}


@pytest.mark.parametrize(
    ("words", "folder"), [([], "FOLDER"), (["--data", "my photos"], "'my photos'"), (["my photos/"], "'my photos'")]
)
def test_a_run_without_a_recipe_lists_matching_recipes(
    words: list[str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image_folder(tmp_path / "my photos", "red", "blue", count=2)
    monkeypatch.chdir(tmp_path)
    code, output = run("run", *words)
    assert code == 2
    commands = [line.strip().partition(" --data ") for line in output.splitlines() if " --data " in line]
    assert [command for command, _, _ in commands] == [
        "convoy-train run --from keras:MobileNetV3Small",
        "convoy-train run resnet18",
        "convoy-train run lenet5",
    ]
    assert {argument for _, _, argument in commands} == {folder}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "mnist-lenet"], "did you mean 'mnist-lenet5'?"),
        (["run", "xo", "--set", "epochs"], "--set epochs has no value"),
        (["run", "xo", "--set", "epoch=3"], "did you mean 'epochs'?"),
        (["run", "xo", "--epochs", "0"], "epochs is 0; it must be at least 1"),
        (["run", "xo", "--resume", "latest", "--epochs", "3"], "A resumed run keeps its recipe"),
        (["run", "xo", "--resume", "runs/none"], "is not the folder of a run"),
        (["run", "xo", "--resume", "--runs-dir", "nowhere"], "no interrupted run"),
        (["run", "xo", "--set", "architecture.size=3"], "xo has no option 'size'"),
        (["run", "xo", "--set", "architecture=vgg"], "no network named 'vgg'"),
        (["run", "xo", "--set", "mean=0,0,0", "--set", "std=1,1,1"], "have 3 values; xo has 1 channels"),
        (["run", "xo", "--set", "validation=4000"], "leave none of the 4,000 training images of xo"),
        (["run", "xo", "--set", "architecture.filters=wide"], "xo cannot be built for xo"),
        (["run", "xo", "--set", "dataset=imagenet"], "no data set called 'imagenet'"),
        (["export", "none.keras", "--name", "n"], "does not exist"),
        (["export", __file__, "--name", "n"], "needs images and labels: use --data FOLDER"),
        (["export", __file__, "--name", "n", "--images", "."], "needs images and labels: use --data FOLDER"),
        (["evaluate", "."], "is not the folder of a run"),
    ],
)
def test_errors_end_with_a_sentence_and_exit_code_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run(*words)
    assert code == 2
    assert output.startswith("Error: ")
    assert message in output
    assert output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
