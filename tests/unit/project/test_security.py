"""The security page names files and tests that exist; the service cannot load a pickle or foreign operators."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SERVICE = sorted((ROOT / "service").rglob("*.py"))
TEXT = (ROOT / "docs/security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:service|training|tests|k8s|requirements)/[\w./-]+)`", TEXT)))
ROWS = [line for line in TEXT.partition("## Threats")[2].partition("\n## ")[0].splitlines() if line.startswith("| ")][
    1:
]

UNPICKLING = {"_pickle", "cPickle", "cloudpickle", "dill", "jsonpickle", "joblib", "marshal", "pickle", "shelve"}
UNPICKLING |= {"torch", "yaml", "sqlalchemy", "pandas"}
"""Libraries that can load arbitrary objects from files."""
RUNNING = {"eval", "exec", "compile", "__import__"}


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    """Yields the calls of a function or method with this name."""
    call_nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call for call in call_nodes if getattr(call.func, "attr", getattr(call.func, "id", None)) == name]


@pytest.mark.parametrize("path", NAMED)
def test_named_files_exist(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("row", ROWS, ids=[row[2:40] for row in ROWS])
def test_every_threat_has_a_defence_and_evidence(row: str) -> None:
    threat, defence, evidence = row.strip("|").split(" | ")
    assert threat.strip()
    assert re.search(r"`(service|training|k8s|requirements)/", defence)
    assert re.search(r"`tests/|`make`", evidence)


@pytest.mark.parametrize("file", SERVICE, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_in_the_service_can_load_a_pickle(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in imported} & UNPICKLING
    for call in calls(tree, "load"):
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        assert ast.unparse(keywords.get("allow_pickle", ast.Constant(False))) == "False"
    assert "allow_pickle=True" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", SERVICE, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_in_the_service_runs_text_or_foreign_operators(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not names & RUNNING
    assert not calls(tree, "register_custom_ops_library")


def test_numpy_itself_loads_no_pickle_by_default() -> None:
    import inspect

    import numpy as np

    assert inspect.signature(np.load).parameters["allow_pickle"].default is False
