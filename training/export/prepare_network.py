"""Converts Keras networks to a form that can be exported: one output, one image size, float32.

Weights do not change. Other modules add the scaling and the activation, and convert the network.
"""

from dataclasses import dataclass

import keras

from training.errors import TrainingError, first_line
from training.export.precision_copy import all_layers, copy_with_dtype
from training.fit.callbacks import Log

CHANNELS = (1, 3)


@dataclass(frozen=True)
class PrepareOptions:
    """`size` is height and width in pixels, for networks that accept any size. `output` names one of several
    outputs."""

    size: tuple[int, int] | None = None
    output: str | None = None


def prepare_network(model: keras.Model, options: PrepareOptions, log: Log) -> keras.Model:
    """Returns the network in the form to export, which may be the network itself. Raises TrainingError."""
    model = with_size(_select_output(model, options.output), options.size)
    precisions = sorted({layer.compute_dtype for layer in all_layers(model)} & {"float16", "bfloat16"})
    if not precisions:
        return model
    log(f"the network computes in {', '.join(precisions)}; it is exported in float32, with the same weights")
    try:
        return copy_with_dtype(model, "float32")
    except Exception as error:  # custom layers can raise any exception
        raise TrainingError(
            f"The network computes in {', '.join(precisions)} and cannot be rebuilt in float32 ({first_line(error)}): "
            'load it, set its dtype policy to "float32", and save it again.'
        ) from error


def is_channels_first(model: keras.Model) -> bool:
    """Returns whether a network takes images of the shape (channels, height, width)."""
    formats = {getattr(layer, "data_format", None) for layer in all_layers(model)}
    if "channels_first" in formats:
        return True
    shape = model.inputs[0].shape[1:]
    return "channels_last" not in formats and len(shape) == 3 and shape[0] in CHANNELS and shape[-1] not in CHANNELS


def _select_output(model: keras.Model, name: str | None) -> keras.Model:
    outputs = _outputs_by_name(model)
    if name is None and len(outputs) > 1:
        raise TrainingError(
            f"The network has {len(outputs)} outputs: choose one of {', '.join(outputs)} with --output."
        )
    if name is None:
        return model
    if name not in outputs:
        raise TrainingError(f"The network has no output {name!r}; it has {', '.join(outputs) or 'no named output'}.")
    return model if len(outputs) == 1 else keras.Model(model.inputs, outputs[name], name=model.name)


def _outputs_by_name(model: keras.Model) -> dict[str, keras.KerasTensor]:
    output = getattr(model, "output", None) if getattr(model, "inputs", None) else None
    if isinstance(output, dict):
        return dict(output)
    if isinstance(output, list | tuple):
        return dict(zip(model.output_names, output, strict=True))
    return {} if output is None else {getattr(model, "output_names", ["output"])[0]: output}


def with_size(model: keras.Model, size: tuple[int, int] | None) -> keras.Model:
    """Returns the network for images of `size`, which is needed if it accepts any size. Raises TrainingError."""
    shapes = [tensor.shape for tensor in getattr(model, "inputs", None) or []]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        return model  # rejected elsewhere
    first = 2 if is_channels_first(model) else 1
    own = shapes[0][first : first + 2]
    if size is None:
        if None in own:
            raise TrainingError("The network takes images of any size: choose one with --size 224 or --size 192x256.")
        return model
    if any(known not in (None, wanted) for known, wanted in zip(own, size, strict=True)):
        raise TrainingError(
            f"The network takes {own[1]}x{own[0]} pixels (width x height), not {size[1]}x{size[0]}: leave out --size."
        )
    if None not in own:
        return model
    shape = [*shapes[0][1:]]
    shape[first - 1 : first + 1] = size
    image = keras.Input(shape, name="image", dtype=model.inputs[0].dtype)
    try:
        return _with_input(model, image)
    except Exception as error:  # custom layers can raise any exception
        raise TrainingError(
            f"The network does not take {size[1]}x{size[0]} pixels (width x height): {first_line(error)}"
        ) from error


def _with_input(model: keras.Model, image: keras.KerasTensor) -> keras.Model:
    """Returns the network with another input. Its layers are copied if possible, so that feature maps are available."""
    holds_graph = any(isinstance(layer, keras.layers.TFSMLayer) for layer in all_layers(model))
    if holds_graph or (type(model) not in (keras.Model, keras.Sequential) and not hasattr(model, "operations")):
        return keras.Model(image, model(image), name=model.name)
    copy = keras.models.clone_model(model, input_tensors=image)
    copy.set_weights(model.get_weights())
    return copy
