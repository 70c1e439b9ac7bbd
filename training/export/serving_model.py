"""From any Keras image classifier to the one form that is exported: pixels 0..255 in, probabilities out."""

from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import Input
from training.architectures.flip import average_over_flip
from training.errors import TrainingError

Outputs = Literal["detect", "logits", "probabilities"]
SUM_TOLERANCE = 1e-3
DETECTION_IMAGES = 64
"""Images that decide whether a network gives logits or probabilities."""


@dataclass(frozen=True)
class Scaling:
    """What was done to pixels 0..255 before this network saw them: (pixel * scale - mean) / std."""

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def is_identity(self) -> bool:
        return self == Scaling()


def input_of(model: keras.Model) -> Input:
    """The size of image that a network takes. Raises TrainingError when it isn't one image of a fixed size."""
    shapes = [tensor.shape for tensor in getattr(model, "inputs", None) or []]
    if len(shapes) != 1:
        raise TrainingError(f"The network has {len(shapes)} known inputs; build it with one keras.Input for images.")
    _, *shape = shapes[0]
    if len(shape) != 3 or shape[-1] not in (1, 3) or None in shape:
        raise TrainingError(
            f"The network takes {shapes[0]}; (None, height, width, 1 or 3) with a fixed height and width is needed."
        )
    return Input(height=shape[0], width=shape[1], channels=shape[2])


def classes_of(model: keras.Model) -> int:
    """How many classes a network tells apart. Raises TrainingError when its output is not one row an image."""
    shapes = [tensor.shape for tensor in model.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or not shapes[0][1]:
        raise TrainingError(f"The network gives {shapes}; one output of shape (None, classes) is needed.")
    if shapes[0][1] < 2:
        raise TrainingError("The network gives one number an image; two classes need two outputs with a softmax.")
    return shapes[0][1]


def to_serving_model(
    model: keras.Model, scaling: Scaling, outputs: Outputs, images: NDArray[np.uint8], flip: bool = False
) -> keras.Model:
    """The network with its scaling in front and, where it gives logits, a softmax behind.

    With `outputs="detect"` its answers to `images`, uint8 (n, height, width, channels), decide what it gives. With
    `flip` the result is the mean over each image and its mirror image.
    Takes float32 pixels 0..255, gives float32 (n, classes). Raises TrainingError when that can't be told.
    """
    image = keras.Input(input_of(model).shape, name="image")
    raw = model(apply_scaling(image, scaling), training=False)
    if outputs == "detect":
        outputs = detect_outputs(keras.Model(image, raw).predict(images.astype(np.float32), verbose=0))
    if outputs == "logits":
        raw = keras.layers.Softmax(dtype="float32", name="softmax")(raw)
    network = keras.Model(image, raw, name=model.name)
    return average_over_flip(network) if flip else network


def detect_outputs(predictions: NDArray[np.floating]) -> Outputs:
    """Whether answers, (n, classes), are logits or probabilities. Raises TrainingError when they look like neither."""
    in_unit_range = bool((predictions >= 0).all() and (predictions <= 1 + SUM_TOLERANCE).all())
    if in_unit_range and np.allclose(predictions.sum(axis=1), 1, atol=SUM_TOLERANCE):
        return "probabilities"
    if in_unit_range:
        raise TrainingError(
            "The network's answers lie between 0 and 1 but do not sum to 1: say --logits to have a softmax added, "
            "or --probabilities to serve them as they are."
        )
    return "logits"


def apply_scaling(image: keras.KerasTensor, scaling: Scaling) -> keras.KerasTensor:
    """Pixels as the network expects them. Raises TrainingError for a scaling that does not fit."""
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
