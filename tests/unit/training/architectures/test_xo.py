"""The X/O network reproduces the printed numbers for one 9x9 X: features, feature maps, ReLU and pooled maps."""

import keras
import numpy as np

from training.architectures import ARCHITECTURES
from training.architectures.kernels import KERNELS
from training.architectures.xo import FEATURES


def truncated(maps: np.ndarray) -> np.ndarray:
    """Rounds to six decimals, so that 0.9999999 becomes 1, and then truncates to two decimals, as in the lecture."""
    return np.trunc(np.round(np.asarray(maps, "float64") * 100, 4)) / 100


def test_all_stages_equal_the_printed_values(golden) -> None:
    source = golden("xo_toy")
    assert [KERNELS[name] for name in FEATURES] == [tuple(map(tuple, feature)) for feature in source["features"]]
    model = ARCHITECTURES["xo"]()
    stages = keras.Model(model.input, [model.get_layer(name).output for name in ("features1", "relu1", "pool1")])
    ink_is_255 = (np.array(source["image"])[None, ..., None] + 1) / 2 * 255
    for maps, key in zip(stages(ink_is_255.astype("float32")), ("feature_maps", "relu", "max_pooled"), strict=True):
        per_feature = np.moveaxis(np.asarray(maps)[0], -1, 0)
        np.testing.assert_array_equal(truncated(per_feature), source[key], err_msg=key)


def test_more_layers_for_larger_images(shapes) -> None:
    model = ARCHITECTURES["xo"](input_shape=(25, 25, 1), filters=(8, 16))
    assert shapes(model, "pool1", "pool2", "pool3") == [[12, 12, 3], [5, 5, 8], [2, 2, 16]]
