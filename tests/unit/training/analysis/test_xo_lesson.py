"""The X/O lesson: the printed numbers of the lecture, other kernels, and a PNG file."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.imaging.decode import decode
from training.analysis.xo_lesson import draw_maps, lesson_stages, truncate
from training.errors import TrainingError

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "xo_toy.json").read_text())


def test_stages_equal_the_printed_values() -> None:
    stages = lesson_stages()
    for image in stages.image:
        np.testing.assert_array_equal(image, GOLDEN["image"])
    np.testing.assert_array_equal(stages.features, GOLDEN["features"])
    np.testing.assert_array_equal(truncate(stages.feature_maps), GOLDEN["feature_maps"])
    np.testing.assert_array_equal(truncate(stages.relu), GOLDEN["relu"])
    np.testing.assert_array_equal(truncate(stages.pooled), GOLDEN["max_pooled"])


def test_truncation_cuts_towards_zero_and_forgives_float32() -> None:
    np.testing.assert_array_equal(truncate(np.array([7 / 9, -7 / 9, 0.9999999, 1.0])), [0.77, -0.77, 1, 1])


def test_the_image_has_one_row_per_feature(tmp_path: Path) -> None:
    draw_maps(tmp_path / "three.png")
    draw_maps(tmp_path / "one.png", ["sobel_x"])
    three, one = (
        decode((tmp_path / name).read_bytes(), channels=1, background=0, max_pixels=10**7)
        for name in ("three.png", "one.png")
    )
    assert three.shape[0] == 3 * one.shape[0]
    assert (three.min(), three.max()) == (0, 255)


def test_an_unknown_kernel_is_reported_with_the_known_ones() -> None:
    with pytest.raises(TrainingError, match="Unknown kernel 'blur'; the kernels are identity"):
        lesson_stages(["blur"])
