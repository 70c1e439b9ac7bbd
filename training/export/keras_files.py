"""Loads Keras networks from files and folders: .keras, .h5 (including Keras 2), and TensorFlow's SavedModel.

Errors state the cause in one sentence, because Keras' messages contain whole configurations.
"""

import importlib.util
import inspect
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import keras

from training.errors import TrainingError, first_line

SAVED_MODEL_FILE = "saved_model.pb"
COMPILED_ATTRIBUTE = "_XlaMustCompile"
SIGNATURES = ("serving_default", "serve")
MAX_CAUSE_LENGTH = 200
KERAS_2_ADVICE = (
    "it was saved by Keras 2 and uses features that Keras 3 lacks: load it with tf_keras, save it as a folder with "
    "model.export(...), and export that folder"
)
MISSING_OBJECT = (
    r"Could not locate (?:class|function) '?(?P<name>[\w>]+)|Unknown (?:layer|object): ?'?(?P<other>[\w>]+)"
)
CAUSES: tuple[tuple[str, str], ...] = (
    (r"TFOpLambda|SlicingOpLambda", KERAS_2_ADVICE),
    (
        MISSING_OBJECT,
        "it uses {name}, which is not part of Keras: use --custom-objects module.py to specify the file that defines "
        "it (the file is executed)",
    ),
    (
        r"Lambda|safe_mode|arbitrary code|unsafe",
        "it contains code (a Lambda layer), which is executed when the file is loaded: if you trust the file, add "
        "--unsafe-lambda",
    ),
    (
        r"No model config(?:uration)? found",
        "it contains weights only: save the whole network with model.save('network.keras'), or, for a network of "
        "keras.applications, use --from-keras-applications NAME --weights FILE",
    ),
    (r"file signature not found|not a zip file|unable to (?:synchronously )?open file", "it is not a Keras file"),
    (r"truncated file|bad superblock|Bad CRC", "it is damaged"),
)
"""Patterns of Keras' messages, and explanations for the user. The first match is used."""

NEWER_KERAS_2_KEYS = ("module", "registered_name", "build_config")
"""Keys of configurations since Keras 2.12. Keras 3 would look for classes in the modules of Keras 2."""
LISTS_OF_ONE = ("input_layers", "output_layers", "axis")
"""Values that Keras 2 wrote as a list. Keras 3 would call the layer after a nested network with a list of tensors."""


@dataclass(frozen=True)
class LoadOptions:
    """`custom_objects` is a Python file with the classes and functions of the network; it is executed.

    `unsafe_lambda` allows the execution of code in Lambda layers.
    """

    custom_objects: Path | None = None
    unsafe_lambda: bool = False


DEFAULT_LOAD_OPTIONS = LoadOptions()


def load_network(path: Path, options: LoadOptions = DEFAULT_LOAD_OPTIONS) -> keras.Model:
    """Loads a Keras network without its optimizer. Raises TrainingError."""
    if is_saved_model(path):
        return _load_saved_model(path)
    if not path.is_file():
        raise TrainingError(f"{path} does not exist. Specify the folder of a run, or a .keras file.")
    custom_objects = {} if options.custom_objects is None else _load_objects(options.custom_objects)
    # For the rest of the process, because the export rebuilds the network in other precisions.
    keras.saving.get_custom_objects().update(custom_objects)
    if path.suffix in (".h5", ".hdf5"):
        custom_objects = {"Functional": keras.Model} | custom_objects  # Keras 3 finds it only at the top of the file
    try:
        with _keras_3_readable(path) as readable:
            model = keras.models.load_model(
                readable, custom_objects=custom_objects, compile=False, safe_mode=not options.unsafe_lambda
            )
        return _with_known_input(model)
    except Exception as error:  # the type of the error depends on the file's contents
        cause = cause_of(error)
        if options.custom_objects is not None and (name := _missing_object(error)):
            cause = f"{options.custom_objects} does not define {name!r}, which it uses"
        raise TrainingError(f"{path} cannot be loaded as a Keras model: {cause}.") from error


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


def _missing_object(error: BaseException) -> str | None:
    """Returns the name of the class or function that Keras did not find, without the package under which it was
    registered."""
    match = re.search(MISSING_OBJECT, str(error), re.IGNORECASE)
    return next(group for group in match.groups() if group).rpartition(">")[2] if match else None


def _with_known_input(model: keras.Model) -> keras.Model:
    """Returns a subclassed network, which does not know its input, as the only layer of a network that does.

    The shape is that of the images with which the network was built before it was saved. Returns the network unchanged
    if its input is known, or if it was not built with images.
    """
    if getattr(model, "inputs", None):
        return model
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, list | tuple) or len(shape) != 4:
        return model  # rejected elsewhere
    image = keras.Input(shape[1:], name="image")
    return keras.Model(image, model(image), name=model.name)


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


@contextmanager
def _keras_3_readable(path: Path) -> Iterator[Path]:
    """Yields `path`, or for an .h5 file of Keras 2 a temporary copy with a configuration that Keras 3 reads.

    Raises OSError if an .h5 file has another format.
    """
    config = _keras_2_config(path) if path.suffix in (".h5", ".hdf5") else None
    if config is None:
        yield path
        return
    with TemporaryDirectory() as folder:
        copy = Path(shutil.copy(path, Path(folder) / "network.h5"))
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(_to_keras_3(json.loads(config)))
        yield copy


def _keras_2_config(path: Path) -> str | None:
    with h5py.File(path) as file:
        version, config = file.attrs.get("keras_version", ""), file.attrs.get("model_config")
        return config if isinstance(config, str) and str(version).startswith("2.") else None


def _to_keras_3(config: Any) -> Any:
    if isinstance(config, list):
        return [_to_keras_3(value) for value in config]
    if not isinstance(config, dict):
        return config
    older = {key: _to_keras_3(value) for key, value in config.items() if key not in NEWER_KERAS_2_KEYS}
    class_name, options = older.get("class_name"), older.get("config")
    if isinstance(options, dict) and class_name == "Sequential":
        options["layers"] = list(_with_input_layer(options["layers"]))
    if isinstance(options, dict) and class_name == "DepthwiseConv2D":
        options.pop("groups", None)  # always 1
    return older | {key: older[key][0] for key in LISTS_OF_ONE if _is_list_of_one(older.get(key))}


def _is_list_of_one(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 1


def _with_input_layer(layers: list[Any]) -> Iterator[Any]:
    """Moves the shape of images from the first layer, where Keras 3 misreads it, to a new InputLayer before it, and
    removes it from the other layers."""
    for index, layer in enumerate(layers):
        is_input = layer["class_name"] == "InputLayer"
        shape = None if is_input else layer["config"].pop("batch_input_shape", None)
        if index == 0 and shape is not None:
            name = f"{layer['config']['name']}_input"
            yield {"class_name": "InputLayer", "config": {"batch_input_shape": shape, "dtype": "float32", "name": name}}
        yield layer


def _load_saved_model(folder: Path) -> keras.Model:
    """Returns a network whose only layer is the folder's inference function, because Keras cannot read its layers."""
    try:
        with _inlinable(folder) as readable:
            return _wrap_signature(folder, readable)
    except TrainingError:
        raise
    except Exception as error:  # the type of the error depends on the folder's contents
        raise TrainingError(f"{folder} cannot be loaded as a SavedModel: {cause_of(error)}.") from error


@contextmanager
def _inlinable(folder: Path) -> Iterator[Path]:
    """Yields a copy of a SavedModel whose functions can all be inlined, with links to its weights.

    Keras wraps grouped convolutions in functions for TensorFlow's compiler, which ONNX cannot express.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    content = SavedModel.FromString((folder / SAVED_MODEL_FILE).read_bytes())
    for graph in (meta_graph.graph_def for meta_graph in content.meta_graphs):
        for function in graph.library.function:
            function.attr.pop(COMPILED_ATTRIBUTE, None)
        for node in (*graph.node, *(node for function in graph.library.function for node in function.node_def)):
            node.attr.pop(COMPILED_ATTRIBUTE, None)
    with TemporaryDirectory() as name:
        for path in folder.resolve().iterdir():
            if path.name != SAVED_MODEL_FILE:
                (Path(name) / path.name).symlink_to(path)
        (Path(name) / SAVED_MODEL_FILE).write_bytes(content.SerializeToString())
        yield Path(name)


def _wrap_signature(folder: Path, readable: Path) -> keras.Model:
    import tensorflow

    signatures = tensorflow.saved_model.load(str(readable)).signatures
    name = next((name for name in SIGNATURES if name in signatures), None)
    if name is None:
        raise TrainingError(
            f"{folder} has no signature {SIGNATURES[0]!r}: export it with model.export(...), or with "
            "tf.saved_model.save and signatures."
        )
    spec = _image_spec(folder, signatures[name].structured_input_signature[1])
    if spec.shape.rank is not None and spec.shape[0] is not None:
        raise TrainingError(
            f"{folder} takes batches of exactly {spec.shape[0]}: export it with the batch size None, with "
            "model.export(...) or a tf.TensorSpec whose first dimension is None."
        )
    image = keras.Input(spec.shape[1:], dtype=spec.dtype.name, name="image")
    outputs = keras.layers.TFSMLayer(str(readable), call_endpoint=name)(image)
    if isinstance(outputs, Mapping) and len(outputs) == 1:
        [outputs] = outputs.values()
    if (precision := getattr(outputs, "dtype", None)) in ("float16", "bfloat16"):
        raise TrainingError(
            f"{folder} computes in {precision}: export the .keras file of the network instead, which is converted to "
            "float32."
        )
    return keras.Model(image, outputs, name=re.sub(r"\W", "_", folder.resolve().name) or "network")


def _image_spec(folder: Path, specs: Mapping[str, Any]) -> Any:
    if len(specs) != 1:
        raise TrainingError(
            f"{folder} has {len(specs)} inputs ({', '.join(specs)}); a classifier has one input, images."
        )
    [spec] = specs.values()
    return spec
