"""Named convolution kernels, for layers that show the effect of a convolution without training."""

from typing import Any

import keras
import numpy as np
from keras import ops

KERNELS = {
    "identity": ((0, 0, 0), (0, 1, 0), (0, 0, 0)),
    "edge_detection": ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)),
    "sobel_x": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "sobel_y": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    # The three features of the X/O network: the strokes of an X.
    "stroke_down": ((1, -1, -1), (-1, 1, -1), (-1, -1, 1)),
    "crossing": ((1, -1, 1), (-1, 1, -1), (1, -1, 1)),
    "stroke_up": ((-1, -1, 1), (-1, 1, -1), (1, -1, -1)),
}


@keras.saving.register_keras_serializable(package="convoy")
class NamedKernels(keras.initializers.Initializer):
    """Initializes a convolution with kernels of `KERNELS`, one per filter, each multiplied by `scale`.

    With several input channels, every filter reads their mean. Raises ValueError for an unknown name, for a layer whose
    kernels are not 3x3, and for a number of filters other than the number of names.
    """

    def __init__(self, names: tuple[str, ...], scale: float = 1.0) -> None:
        unknown = [name for name in names if name not in KERNELS]
        if unknown:
            raise ValueError(f"Unknown kernel '{unknown[0]}'; the kernels are {', '.join(KERNELS)}.")
        self.names, self.scale = tuple(names), scale

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> keras.KerasTensor:
        if tuple(shape[:2]) != (3, 3) or shape[3] != len(self.names):
            raise ValueError(f"{len(self.names)} kernels of 3x3 do not fill a layer of shape {tuple(shape)}.")
        stack = np.stack([KERNELS[name] for name in self.names], axis=-1)[:, :, None]
        stack = np.repeat(stack, shape[2], axis=2) * (self.scale / shape[2])
        return ops.convert_to_tensor(stack.astype("float32"), dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"names": self.names, "scale": self.scale}


def kernel_layer(names: tuple[str, ...] = ("identity", "edge_detection", "sobel_x", "sobel_y")) -> keras.layers.Layer:
    """Returns a frozen 3x3 convolution with named kernels: (batch, height, width, any) -> (..., len(names))."""
    initializer = NamedKernels(names)
    return keras.layers.Conv2D(
        len(names), 3, padding="same", use_bias=False, kernel_initializer=initializer, trainable=False, name="kernels"
    )
