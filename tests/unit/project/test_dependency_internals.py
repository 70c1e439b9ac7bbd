"""Internal names of dependencies that the code overrides or uses still exist.

Without these tests, an override that a new release no longer calls would silently do nothing.
"""

import ast
import asyncio
import inspect
import textwrap
import tomllib
from functools import cache
from importlib import import_module
from types import CodeType, ModuleType
from typing import Any

import httptools
import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from tests.unit.project.test_imports import MODULES, ROOT, imports_of

DECLARATIVE = {"pydantic", "pydantic_settings"}  # the fields of their subclasses are attributes, not overrides

# Attributes of the server's classes that hold an object of a dependency.
HELD_OBJECTS: dict[str, type] = {
    "cycle": RequestResponseCycle,
    "_current_cycle": RequestResponseCycle,
    "flow": FlowControl,
    "parser": httptools.HttpRequestParser,
    "config": uvicorn.Config,
    "server_state": ServerState,
    "lifespan": LifespanOn,
}
CALLED_BY_PARSER = {
    "on_chunk_header"
}  # a callback of httptools: see `test_the_parser_calls_back_for_every_part_of_a_request`


def root_package(module: str) -> str:
    return module.partition(".")[0]


@cache
def subclasses_of_dependencies() -> dict[str, type]:
    """Returns every class of the service that has a base class from a dependency, by module and name."""
    names = [name for name in MODULES if root_package(name) == "service"]
    classes = {
        f"{name}.{cls.__name__}": cls
        for name in names
        for cls in vars(import_module(name)).values()
        if isinstance(cls, type) and cls.__module__ == name
    }
    return {name: cls for name, cls in classes.items() if foreign_bases(cls)}


def foreign_bases(cls: type) -> list[type]:
    """Returns the base classes from dependencies whose methods a subclass may override."""
    roots = {root_package(base.__module__) for base in cls.__mro__}
    if roots & DECLARATIVE:
        return []
    return [base for base in cls.__mro__ if is_foreign(base.__module__)]


def is_foreign(module: str) -> bool:
    source = getattr(import_module(root_package(module)), "__file__", None)
    return root_package(module) != "service" and source is not None and "site-packages" in source


def source_tree(cls: type) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # compiled
        return ast.Module([], [])


def self_attributes(cls: type, context: type[ast.expr_context]) -> set[str]:
    """Returns the names of `self.name` in the source of the class, where they are read (ast.Load) or assigned
    (ast.Store)."""
    return {
        node.attr
        for node in ast.walk(source_tree(cls))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, context)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def super_attributes(cls: type) -> set[str]:
    """Returns the names of `super().name` in the source of the class."""
    return {
        node.attr
        for node in ast.walk(source_tree(cls))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call) and is_super(node.value.func)
    }


def is_super(function: ast.expr) -> bool:
    return isinstance(function, ast.Name) and function.id == "super"


def provided_by(cls: type) -> set[str]:
    """Returns the names that instances of the class have: its attributes and methods, and the names that its methods
    assign."""
    assigned = (self_attributes(base, ast.Store) for base in cls.__mro__)
    annotated = (vars(base).get("__annotations__", {}) for base in cls.__mro__)
    return set(dir(cls)).union(*assigned, *annotated)


def own_names(cls: type) -> set[str]:
    """Returns the names that the class itself and its base classes in this project define. Attributes count only if
    they are private."""
    own = [base for base in cls.__mro__ if root_package(base.__module__) == "service"]
    private = {name for base in own for name in self_attributes(base, ast.Store) if name.startswith("_")}
    return private.union(*(vars(base) for base in own), *(vars(base).get("__annotations__", {}) for base in own))


def provided_by_dependencies(cls: type) -> set[str]:
    return {name for base in foreign_bases(cls) for name in provided_by(base)}


def names_called(module: ModuleType) -> set[str]:
    """Returns every attribute that the functions of a module use."""

    def names(code: CodeType) -> set[str]:
        nested = (names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
        return set(code.co_names).union(*nested)

    return names(compile(inspect.getsource(module), module.__name__, "exec"))


def private_names_used(cls: type) -> set[str]:
    """Returns the private names of dependencies that the class overrides or uses."""
    used = self_attributes(cls, ast.Load) | super_attributes(cls)
    private = {name for name in used if name.startswith("_") and not name.startswith("__")}
    return private & provided_by_dependencies(cls)


def test_the_classes_of_the_server_are_checked() -> None:
    assert {
        "service.server.connection_limits.LimitedProtocol",
        "service.server.worker.WorkerServer",
        "service.app.Application",
    } <= set(subclasses_of_dependencies())
    assert private_names_used(subclasses_of_dependencies()["service.server.worker.WorkerServer"]) == {
        "_captured_signals"
    }


def test_everything_that_a_subclass_uses_of_its_base_class_exists() -> None:
    missing = {
        name: lacking
        for name, cls in subclasses_of_dependencies().items()
        if (
            lacking := (super_attributes(cls) - provided_by_dependencies(cls) - set(dir(object)))
            | (self_attributes(cls, ast.Load) - own_names(cls) - provided_by_dependencies(cls))
        )
    }
    assert missing == {}


def test_every_method_of_a_subclass_overrides_one_or_is_called_by_the_service() -> None:
    """A method that overrides nothing and is not called probably overrode a method that the dependency has renamed."""
    trees = [ast.parse(path.read_text()) for name, path in MODULES.items() if root_package(name) == "service"]
    used = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    unused = {
        f"{class_name}.{name}"
        for class_name, cls in subclasses_of_dependencies().items()
        for name, value in vars(cls).items()
        if inspect.isfunction(value) and not name.startswith("__")
        if name not in used | provided_by_dependencies(cls) | CALLED_BY_PARSER
    }
    assert unused == set()


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("service.server.connection_limits.LimitedProtocol", httptools_impl),
        ("service.server.worker.WorkerServer", import_module("uvicorn.server")),
    ],
)
def test_uvicorn_calls_the_methods_that_are_overridden(name: str, module: ModuleType) -> None:
    cls = subclasses_of_dependencies()[name]
    overridden = {name for name in vars(cls) if not name.startswith("__")} & provided_by_dependencies(cls)
    called_by_others = set(dir(asyncio.Protocol)) | {
        name for name in dir(httptools.HttpRequestParser) if name.startswith("on_")
    }
    callbacks = {"on_message_begin", "on_headers_complete", "on_message_complete"}  # names of httptools, tested below
    assert overridden - callbacks
    assert overridden - callbacks - called_by_others - names_called(module) == set()


def test_objects_that_uvicorn_creates_have_the_attributes_that_are_used() -> None:
    used = {
        (node.value.attr, node.attr)
        for name, cls in subclasses_of_dependencies().items()
        for node in ast.walk(source_tree(cls))
        if name.startswith("service.server.") and isinstance(node, ast.Attribute)
        if isinstance(node.value, ast.Attribute) and node.value.attr in HELD_OBJECTS
    }
    assert {("cycle", "keep_alive"), ("flow", "read_paused"), ("server_state", "connections")} <= used
    missing = {f"{holder}.{name}" for holder, name in used if name not in provided_by(HELD_OBJECTS[holder])}
    assert missing == set()


def test_the_parser_calls_back_for_every_part_of_a_request() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("on_"):
                raise AttributeError(name)
            return lambda *arguments: self.calls.append(name)

    recorder = Recorder()
    request = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
    httptools.HttpRequestParser(recorder).feed_data(request)
    assert recorder.calls.count("on_chunk_header") == 3
    assert [call for call in recorder.calls if "header" not in call and "chunk" not in call][
        -1
    ] == "on_message_complete"
    assert recorder.calls.index("on_message_begin") < recorder.calls.index("on_headers_complete")


def test_fastapi_has_what_older_releases_accept_and_ignore() -> None:
    assert "telemetry" in inspect.signature(FastAPI).parameters
    assert {"openapi", "openapi_schema"} <= provided_by(FastAPI)


def test_dependencies_whose_private_names_are_used_are_pinned_to_a_minor_version() -> None:
    private_modules = {
        root_package(imported)
        for module, path in MODULES.items()
        for imported, name in imports_of(path)
        if root_package(module) == "service" and root_package(imported) not in {"service", "__future__"}
        if any(part.startswith("_") for part in [*imported.split("."), name or ""])
    }
    overridden = {
        root_package(base.__module__)
        for cls in subclasses_of_dependencies().values()
        for base in foreign_bases(cls)
        if private_names_used(cls) & provided_by(base)
    }
    assert (private_modules, overridden) == ({"starlette"}, {"uvicorn"})
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for library in private_modules | overridden:
        (requirement,) = [line for line in requirements if line.startswith(f"{library}>=")]
        lower, _, upper = requirement.removeprefix(f"{library}>=").partition(",<")
        major, minor, *_ = map(int, lower.split("."))
        assert upper == f"{major}.{minor + 1}"
