"""Reads the labels and the image size that ultralytics and Hugging Face store in an ONNX file or next to it."""

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from training.errors import TrainingError
from training.export.labels import ClassLabels, class_labels_of, parse_names
from training.onnx_import.reader import Size

CONFIG_FILE, PREPROCESSOR_FILE = "config.json", "preprocessor_config.json"


@dataclass(frozen=True)
class FileMetadata:
    """The metadata and its sources. Missing values are None."""

    labels: ClassLabels | None = None
    labels_from: str = ""
    size: Size | None = None
    size_from: str = ""


def read_metadata(path: Path, model: onnx.ModelProto, graph_labels: tuple[str, ...]) -> FileMetadata:
    """Reads metadata from the graph (`graph_labels`), the ONNX file, and Hugging Face's files next to it.

    Raises TrainingError if the metadata states a task other than classification.
    """
    values = {entry.key: entry.value for entry in model.metadata_props}
    if (task := values.get("task", "classify")) != "classify":
        raise TrainingError(
            f"{path} is a network for the task {task!r}, according to its metadata; a classifier is needed."
        )
    size = _parse_size(values.get("imgsz"))
    if graph_labels:
        return FileMetadata(ClassLabels(graph_labels), "the graph", size, "the file's metadata")
    if (labels := _parse_names(values.get("names"))) is not None:
        return FileMetadata(labels, "the file's metadata (names)", size, "the file's metadata (imgsz)")
    for folder in (path.parent, path.parent.parent):  # optimum writes onnx/model.onnx
        config = _read_json(folder / CONFIG_FILE)
        if isinstance(config, dict) and "id2label" in config:
            side = _parse_size(_read_json(folder / PREPROCESSOR_FILE))
            return FileMetadata(_hugging_face_labels(config), f"{CONFIG_FILE} next to it", side, PREPROCESSOR_FILE)
    return FileMetadata(size=size, size_from="the file's metadata")


def _parse_names(text: str | None) -> ClassLabels | None:
    try:
        return None if text is None else parse_names(text)
    except (ValueError, TypeError, KeyError):
        return None


def _hugging_face_labels(config: dict[str, Any]) -> ClassLabels | None:
    try:
        return class_labels_of(config)
    except (ValueError, TypeError, KeyError):
        return None


def _parse_size(value: Any) -> Size | None:
    """Parses height and width from "[224, 224]", {"size": 224} or {"size": {"height": 224, "width": 224}}."""
    try:
        value = ast.literal_eval(value) if isinstance(value, str) else value
        value = value.get("crop_size", value.get("size")) if isinstance(value, dict) else value
        if isinstance(value, dict):
            value = [value["height"], value["width"]]
        height, width = value if isinstance(value, list | tuple) else (value, value)
        return int(height), int(width)
    except (ValueError, TypeError, KeyError, SyntaxError):
        return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None
