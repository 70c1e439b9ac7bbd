"""Loads Keras networks from files and folders: .keras, .h5 (of Keras 2 too), and SavedModel of TensorFlow.

Errors state the cause in one sentence, because Keras' messages contain whole configurations.
"""

import importlib.util
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from training.errors import TrainingError, first_line

SAVED_MODEL_FILE = "saved_model.pb"
SIGNATURES = ("serving_default", "serve")
MAX_CAUSE_LENGTH = 200
KERAS_2_ADVICE = (
    "it was saved by Keras 2 and uses features that Keras 3 lacks: load it with tf_keras, save it as a folder with "
    "model.export(...), and export that folder"
)
CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"Could not locate (?:class|function) '?(?P<name>\w+)|Unknown (?:layer|object): ?'?(?P<other>\w+)",
        "it uses {name}, which is not part of Keras: name the file that defines it with --custom-objects module.py "
        "(the file is executed)",
    ),
    (
        r"Lambda|safe_mode|arbitrary code|unsafe",
        "it contains code (a Lambda layer), which is executed when the file is loaded: if you trust the file, add "
        "--unsafe-lambda",
    ),
    (r"TFOpLambda|SlicingOpLambda", KERAS_2_ADVICE),
    (r"file signature not found|not a zip file|unable to (?:synchronously )?open file", "it is not a Keras file"),
    (r"truncated file|bad superblock|Bad CRC", "it is damaged"),
)
"""Patterns of Keras' messages and the explanation for the user. The first match is used."""


@dataclass(frozen=True)
class LoadOptions:
    """`custom_objects` is a Python file with the classes and functions of the network; it is executed.

    `unsafe_lambda` allows the execution of code in Lambda layers.
    """

    custom_objects: Path | None = None
    unsafe_lambda: bool = False


DEFAULT_LOAD_OPTIONS = LoadOptions()


class _Keras2DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Accepts the argument `groups`, always 1, which Keras 2 wrote and Keras 3 does not know."""

    def __init__(self, *args: Any, groups: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


def load_network(path: Path, options: LoadOptions = DEFAULT_LOAD_OPTIONS) -> keras.Model:
    """Loads a Keras network without its optimizer. Raises TrainingError."""
    if is_saved_model(path):
        return _load_saved_model(path)
    if not path.is_file():
        raise TrainingError(f"{path} does not exist. Name the folder of a run, or a .keras file.")
    custom_objects = {} if options.custom_objects is None else _load_objects(options.custom_objects)
    if path.suffix in (".h5", ".hdf5"):
        custom_objects = {"DepthwiseConv2D": _Keras2DepthwiseConv2D} | custom_objects
    try:
        return keras.models.load_model(
            path, custom_objects=custom_objects, compile=False, safe_mode=not options.unsafe_lambda
        )
    except Exception as error:  # the type of the error depends on the file's contents
        raise TrainingError(f"{path} cannot be loaded as a Keras model: {cause_of(error)}.") from error


def is_saved_model(path: Path) -> bool:
    return (path / SAVED_MODEL_FILE).is_file()


def cause_of(error: BaseException) -> str:
    """Returns the cause of Keras' error in one sentence, without the full stop."""
    message = str(error)
    for pattern, meaning in CAUSES:
        if match := re.search(pattern, message, re.IGNORECASE):
            groups = [group for group in match.groups() if group]
            return meaning.format(name=repr(groups[0]) if groups else "")
    sentence = re.split(r"(?<=[.!?])\s|\n|\bconfig=\{", first_line(error))[0].strip().rstrip(".:")
    return sentence if len(sentence) <= MAX_CAUSE_LENGTH else f"{sentence[:MAX_CAUSE_LENGTH]}..."


def _load_objects(path: Path) -> dict[str, Any]:
    """Executes a Python file; returns the classes and functions that it defines, by name."""
    spec = importlib.util.spec_from_file_location("custom_objects", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise TrainingError(f"--custom-objects {path} is not a Python file (module.py).")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        raise TrainingError(f"--custom-objects {path} fails: {type(error).__name__}: {first_line(error)}") from error
    return {
        name: value
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__
    }


def _load_saved_model(folder: Path) -> keras.Model:
    """Returns a network whose only layer is the folder's inference function, because Keras cannot read its layers."""
    import tensorflow

    try:
        signatures = tensorflow.saved_model.load(str(folder)).signatures
        name = next((name for name in SIGNATURES if name in signatures), None)
        if name is None:
            raise TrainingError(
                f"{folder} has no signature {SIGNATURES[0]!r}: export it with model.export(...), or with "
                "tf.saved_model.save and signatures."
            )
        spec = _image_spec(folder, signatures[name].structured_input_signature[1])
        image = keras.Input(spec.shape[1:], dtype=spec.dtype.name, name="image")
        outputs = keras.layers.TFSMLayer(str(folder), call_endpoint=name)(image)
    except TrainingError:
        raise
    except Exception as error:  # the type of the error depends on the folder's contents
        raise TrainingError(f"{folder} cannot be loaded as a SavedModel: {cause_of(error)}.") from error
    if isinstance(outputs, Mapping) and len(outputs) == 1:
        [outputs] = outputs.values()
    return keras.Model(image, outputs, name=re.sub(r"\W", "_", folder.resolve().name) or "network")


def _image_spec(folder: Path, specs: Mapping[str, Any]) -> Any:
    if len(specs) != 1:
        raise TrainingError(
            f"{folder} has {len(specs)} inputs ({', '.join(specs)}); a classifier has one input, images."
        )
    [spec] = specs.values()
    return spec
