"""Schemathesis against a running service: every response is documented in OpenAPI.

A schema cannot describe all rules for images and tensors, so a rejected image or tensor is not a failure here.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.native.classify import Classify
from service.api.v1.predict import Predict
from service.api.v2.infer import Infer
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

MODEL, LABEL = "mnist-lenet5", "stable"  # the names of the examples
FAST_PATHS = (Classify.path, Infer.path, Infer.path_with_version, Predict.path, Predict.path_with_label)
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
LIMIT_S = 300  # the run takes ten seconds on an idle machine
# Every operation must find its model. A label works like a number in every path.
CONFIG = f"""
[parameters]
"path.model" = "{MODEL}"
"path.version" = "{LABEL}"
"""


@pytest.fixture
def labeled_service(tmp_path: Path) -> Iterator[RunningService]:
    """Runs a service with the models of the examples. Its repository may be changed by clients, so each test has its
    own service."""
    models, state = tmp_path / "models", tmp_path / "state.json"
    # No generated JSON may have the size of the input by coincidence, because it would be parsed as a raw tensor.
    for version in (1, 2):
        write_version(models, MODEL, version, shape=(28, 28, 1), classes=10)
    state.write_text(json.dumps({"models": {MODEL: {"versions": {"latest": 2}, "labels": {LABEL: 1}}}}))
    with RunningService(models, state=state, repository_changes="true") as running:
        yield running


def run_schemathesis(service: RunningService, folder: Path, *options: str) -> str:
    """Runs schemathesis and returns its output. Fails with the output if schemathesis found a problem."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [SCHEMATHESIS, "--config-file", config, "run", f"{service.url}/openapi.json"]
    fixed = ["--seed", "1", "--generation-database", "none", "--no-color"]
    excluded_checks = ["--exclude-checks", "positive_data_acceptance"]
    result = subprocess.run(
        [*command, *fixed, *excluded_checks, *options], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_operation_keeps_to_its_description(labeled_service: RunningService, tmp_path: Path) -> None:
    changes = ["--exclude-path-regex", "/(un)?load$"]
    output = run_schemathesis(labeled_service, tmp_path, "--max-examples", "10", *changes)
    paths = labeled_service.client.get("/openapi.json").json()["paths"]
    operations = sum(len(methods) for methods in paths.values())
    assert f"Selected: {operations - 2}/{operations}" in output
    answered_paths = {line["path"] for line in list(labeled_service.lines) if line.get("status") == 200}
    assert {path.format(model=MODEL, version=LABEL) for path in FAST_PATHS} <= answered_paths
    assert not [line for line in labeled_service.lines if line["event"] == "unexpected error"]


def test_loading_and_unloading_keep_to_their_description(labeled_service: RunningService, tmp_path: Path) -> None:
    output = run_schemathesis(labeled_service, tmp_path, "--max-examples", "5", "--include-path-regex", "/(un)?load$")
    assert "Tested: 2" in output
