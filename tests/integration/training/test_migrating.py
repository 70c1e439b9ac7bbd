"""The commands in docs/migrating/ convert models of other servers, in the documented folder layouts."""

import json
import re
import shlex
import shutil
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from service.loaded_models.verify_version import verify
from service.model_store.repository import Repository, VersionFolder
from tests.documentation import ROOT
from tests.support.images import image_bytes
from tests.support.onnx_graphs import CLASSES, third_party_graph
from training.cli import main

PROGRAM = ".venv-dev/bin/convoy-train "
LABELS = [f"breed {index}" for index in range(CLASSES)]
BENTOML_FOLDER = "bentoml/models/pets/z6hawshnbgwpiax4"
GAIN = 0.3  # small weights, so that the outputs for noise images differ
SAVED_MODEL = ROOT / "tests/data/keras2/tutorial_saved_model"


def conversion(page: str) -> list[str]:
    """Returns the arguments of a page's only `convoy-train` command."""
    text = (ROOT / "docs/migrating" / page).read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (command,) = [block for block in blocks if block.startswith(PROGRAM)]
    command = command.replace("\\\n", " ").replace("$(bentoml models get pets:latest -o path)", BENTOML_FOLDER)
    return shlex.split(command.removeprefix(PROGRAM))


def convert(page: str) -> VersionFolder:
    """Runs the command in the current folder and opens the documented version."""
    result = CliRunner().invoke(main, conversion(page))
    assert result.exit_code == 0, result.output
    assert "`models/pets/1`" in (ROOT / "docs/migrating" / page).read_text()
    repository = Repository(Path("models"))
    assert all(finding.is_ok for finding in verify(repository, "pets", 1))
    return repository.open("pets", 1)


@pytest.fixture(autouse=True)
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def assert_center_crop_of_imagenet(version: VersionFolder) -> None:
    manifest = version.manifest
    assert manifest.input.shape == (224, 224, 3)
    assert (manifest.preprocessing.shorter, manifest.activation) == (256, "softmax")
    assert list(version.labels) == LABELS


def test_a_model_of_triton() -> None:
    write("model_repository/pets/config.pbtxt", 'name: "pets"')
    write("model_repository/pets/labels.txt", "\n".join(LABELS))
    Path("model_repository/pets/1").mkdir()
    onnx.save(third_party_graph(side=224, gain=GAIN, output_kind="logits"), "model_repository/pets/1/model.onnx")
    assert_center_crop_of_imagenet(convert("triton.md"))


def test_a_model_of_torchserve() -> None:
    write("index_to_name.json", json.dumps({str(index): label for index, label in enumerate(LABELS)}))
    onnx.save(third_party_graph(side=224, gain=GAIN, batch=1, output_kind="logits"), "pets.onnx")
    assert_center_crop_of_imagenet(convert("torchserve.md"))


def test_a_model_of_tensorflow_serving() -> None:
    shutil.copytree(SAVED_MODEL, "serving/pets/1")
    write("serving/pets/labels.txt", "red\ngreen\nblue\n")
    Path("photos").mkdir()
    for index in range(12):
        Path(f"photos/{index}.png").write_bytes(image_bytes(40 + index, 60 - index, 3, index))
    version = convert("tensorflow-serving.md")
    assert list(version.labels) == ["red", "green", "blue"]
    assert version.manifest.input.shape == (16, 16, 3)


def test_a_model_of_bentoml() -> None:
    Path(BENTOML_FOLDER).mkdir(parents=True)
    onnx.save(third_party_graph(side=224, gain=GAIN), f"{BENTOML_FOLDER}/model.onnx")
    write("labels.txt", "\n".join(LABELS))
    version = convert("bentoml.md")
    assert list(version.labels) == LABELS
    assert version.manifest.preprocessing.shorter is None
