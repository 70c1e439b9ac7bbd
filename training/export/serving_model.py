"""Converts any Keras image classifier to the form that is exported: pixels 0..255 in, probabilities out."""

from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import Input, Preprocessing
from training.architectures.flip import average_over_flip
from training.errors import TrainingError
from training.export.output_activation import Head, OutputOptions, detect_head
from training.export.prepare_network import CHANNELS, is_channels_first
from training.export.scaling import Scaling

DETECTION_IMAGES = 64
"""Number of images for detecting whether a network outputs logits or probabilities."""


def input_of(model: keras.Model) -> Input:
    """Returns the image size of a network. Raises TrainingError if its input is not one image of a fixed size."""
    shapes = [tensor.shape for tensor in getattr(model, "inputs", None) or []]
    if len(shapes) != 1:
        raise TrainingError(f"The network has {len(shapes)} known inputs; build it with one keras.Input for images.")
    _, *shape = shapes[0]
    if len(shape) == 3 and is_channels_first(model):
        shape = [*shape[1:], shape[0]]
    if len(shape) == 3 and shape[-1] == 4:
        raise TrainingError(
            "The network takes 4 channels, but images are served with 1 or 3. If the network expects RGBA, add the "
            "opaque fourth channel in front: image = keras.Input((height, width, 3)); opaque = "
            "keras.ops.full_like(image[..., :1], 255); "
            "keras.Model(image, model(keras.ops.concatenate([image, opaque], axis=-1)))."
        )
    if len(shape) != 3 or shape[-1] not in CHANNELS or None in shape:
        raise TrainingError(
            f"The network takes {shapes[0]}; it must take (None, height, width, 1 or 3) with a fixed height and width."
        )
    return Input(height=shape[0], width=shape[1], channels=shape[2])


def outputs_of(model: keras.Model) -> int:
    """Returns the number of outputs per image. Raises TrainingError if the output is not one row per image."""
    shapes = [tensor.shape for tensor in model.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or not shapes[0][1]:
        raise TrainingError(f"The network outputs {shapes}; it must have one output of shape (None, classes).")
    return int(shapes[0][1])


@dataclass(frozen=True)
class ServingModel:
    """A network that takes float32 pixels 0..255 and outputs probabilities, float32 (n, classes)."""

    network: keras.Model
    head: Head

    @property
    def classes(self) -> int:
        return outputs_of(self.network)

    def describe(self, scaling: Scaling, preprocessing: Preprocessing) -> str:
        """Returns one line for the user: the assumptions about the input, and the additions to the network."""
        height, width, channels = self.network.input_shape[1:]
        colors = "gray" if channels == 1 else "BGR" if scaling.bgr else "RGB"
        resized = "both sides scaled to it"
        if preprocessing.shorter is not None:
            resized = f"shorter side scaled to {preprocessing.shorter}, center cropped"
        added = "added" if self.head.is_logits else "as in the network"
        return (
            f"input {height}x{width} (height x width; {resized}), {colors}; pixels: {scaling.describe()}; "
            f"{self.classes} classes; {self.head.activation} {added}"
        )


def to_serving_model(
    model: keras.Model, scaling: Scaling, options: OutputOptions, images: NDArray[np.uint8], flip: bool = False
) -> ServingModel:
    """Adds the scaling in front of a network and, if it outputs logits, the activation after it.

    An activation that the options do not set is detected from the last layer and from the outputs for `images`, uint8
    (n, height, width, channels). With `flip` the result is the mean over each image and its mirror image. Raises
    TrainingError if the activation cannot be detected.
    """
    outputs_of(model)
    image = keras.Input(input_of(model).shape, name="image")
    pixels = apply_scaling(image, scaling)
    if is_channels_first(model):
        pixels = keras.layers.Permute((3, 1, 2), name="to_channels_first")(pixels)
    raw = model(pixels, training=False)
    answers = keras.Model(image, raw).predict(images.astype(np.float32), verbose=0)
    head = detect_head(answers, options, last_activation(model))
    network = keras.Model(image, _probabilities(raw, head), name=model.name)
    return ServingModel(average_over_flip(network) if flip else network, head)


def last_activation(model: keras.Model) -> str | None:
    """Returns the name of a network's last function ("linear" if there is none), or None if it is unknown."""
    try:
        operation = model.outputs[0]._keras_history.operation
    except AttributeError:  # a subclassed model
        return None
    if isinstance(operation, keras.Model):
        return last_activation(operation)
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    activation = getattr(operation, "activation", None)
    if activation is not None:
        return str(getattr(activation, "__name__", "")) or None
    return type(operation).__name__.lower() if type(operation).__name__ in ("Softmax", "Sigmoid") else None


def _probabilities(raw: keras.KerasTensor, head: Head) -> keras.KerasTensor:
    """Adds the activation. A binary network gets two columns: the probabilities of the first and the second label."""
    if head.activation == "binary":
        raw = keras.ops.concatenate([-raw if head.is_logits else 1 - raw, raw], axis=-1)
    if not head.is_logits:
        return raw
    if head.activation == "softmax":
        return keras.layers.Softmax(dtype="float32", name="softmax")(raw)
    return keras.layers.Activation("sigmoid", dtype="float32", name="sigmoid")(raw)


def apply_scaling(image: keras.KerasTensor, scaling: Scaling) -> keras.KerasTensor:
    """Orders and scales pixels as the network expects them. Raises TrainingError for a scaling that does not fit."""
    if scaling.bgr and image.shape[-1] != 3:
        raise TrainingError("--channels bgr is for networks that take color images.")
    image = image[..., ::-1] if scaling.bgr else image
    return image if scaling.is_identity else _rescaling_layer(scaling, image.shape[-1])(image)


def _rescaling_layer(scaling: Scaling, channels: int) -> keras.layers.Rescaling:
    for name in ("mean", "std"):
        if len(getattr(scaling, name)) not in (1, channels):
            raise TrainingError(
                f"--{name} has {len(getattr(scaling, name))} values; the network has {channels} channels."
            )
    if not all(std > 0 for std in scaling.std):
        raise TrainingError("--std must be positive.")
    mean, std = np.broadcast_arrays(np.array(scaling.mean), np.array(scaling.std))
    scale, offset = (scaling.scale / std).tolist(), (-mean / std).tolist()
    is_scalar = len(scale) == 1
    return keras.layers.Rescaling(scale[0] if is_scalar else scale, offset[0] if is_scalar else offset, name="scaling")
