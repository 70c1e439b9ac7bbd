"""Draws the X/O lesson: each layer's output for one image of an X, with the values printed in the cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.architectures import build
from training.architectures.kernels import KERNELS
from training.architectures.xo import FEATURES
from training.data.datasets.xo import lesson_image
from training.errors import TrainingError
from training.runs.plots import save_figure

INCHES_PER_CELL = 0.36


@dataclass(frozen=True)
class LayerStages:
    """The image and the outputs of the layers, float32 (features, height, width), one map per feature."""

    image: NDArray[np.float32]
    features: NDArray[np.float32]
    feature_maps: NDArray[np.float32]
    relu: NDArray[np.float32]
    pooled: NDArray[np.float32]


def lesson_stages(features: Sequence[str] = FEATURES) -> LayerStages:
    """Runs the untrained X/O network with these kernels on the lesson's X. Raises TrainingError for unknown names."""
    if unknown := [name for name in features if name not in KERNELS]:
        raise TrainingError(f"Unknown kernel {unknown[0]!r}; the kernels are {', '.join(KERNELS)}.")
    model = build("xo", features=tuple(features))
    layers = ("normalize", "features1", "relu1", "pool1")
    stage_model = keras.Model(model.input, [model.get_layer(name).output for name in layers])
    image, *maps = (np.moveaxis(np.asarray(stage)[0], -1, 0) for stage in stage_model(lesson_image()[np.newaxis]))
    kernels = np.array([KERNELS[name] for name in features], "float32")
    return LayerStages(np.repeat(image, len(features), axis=0), kernels, *maps)


def truncate(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Truncates to two decimals, as the slides do:

    7/9 is 0.77. Rounds first, so that 0.9999999 in float32 becomes 1.
    """
    return np.trunc(np.round(np.asarray(values, np.float64) * 100, 3)) / 100


def draw_maps(path: Path, features: Sequence[str] = FEATURES) -> None:
    """Writes the PNG with one row per feature, from the image to the pooled map. Raises TrainingError."""
    stages = lesson_stages(features)
    columns = {
        "image": stages.image,
        "feature": stages.features,
        "feature map\n(mean of the products)": stages.feature_maps,
        "ReLU": stages.relu,
        "2x2 max pooling": stages.pooled,
    }
    widths = [maps.shape[2] for maps in columns.values()]
    size = INCHES_PER_CELL * (sum(widths) + 4), INCHES_PER_CELL * (stages.image.shape[1] + 2) * len(features)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(features), len(columns), squeeze=False, width_ratios=widths)
    for row, name in enumerate(features):
        for axes, (title, maps) in zip(grid[row], columns.items(), strict=True):
            _draw_map(axes, maps[row], name if title == "feature" else title if row == 0 else "")
    save_figure(figure, path)


def _draw_map(axes: Axes, values: NDArray[np.floating], title: str) -> None:
    """Draws one map as a grid of shaded numbers: white is the highest possible value, black the lowest."""
    max_value = max(1.0, float(np.abs(values).max()))
    axes.imshow(values, cmap="gray", vmin=-max_value, vmax=max_value)
    is_whole = (values == values.round()).all()
    for (row, column), value in np.ndenumerate(truncate(values)):
        text = f"{value:.0f}" if is_whole else f"{value + 0.0:.2f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color="black" if value > 0 else "white")
    axes.set(title=title, xticks=[], yticks=[])
    axes.title.set_fontsize(9)
