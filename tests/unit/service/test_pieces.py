"""Large batches run in pieces, and what comes back is as if they had not."""

from typing import Any

import numpy as np
import pytest

from service.pieces import Pieces, fastest_batch

IMAGES = np.arange(14, dtype=np.uint8).reshape(7, 2)


@pytest.mark.parametrize(
    ("size", "pieces"), [(1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 3, 1]), (6, [6, 1]), (7, [7]), (64, [7])]
)
def test_every_image_runs_once_and_the_rows_keep_their_order(size: int, pieces: list[int]) -> None:
    sizes: list[int] = []

    def doubled(images: Any, options: Any) -> Any:
        sizes.append(len(images))
        return images * 2.0

    np.testing.assert_array_equal(Pieces(doubled, size).run(IMAGES), IMAGES * 2.0)
    assert sizes == pieces


def test_every_piece_runs_with_the_options() -> None:
    seen: list[Any] = []

    def noted(images: Any, options: Any) -> Any:
        seen.append(options)
        return images

    Pieces(noted, 4).run(IMAGES, "options")
    assert seen == ["options"] * 2


def test_a_piece_that_fails_fails_the_batch() -> None:
    def brittle(images: Any, options: Any) -> Any:
        if images.max() > 10:
            raise ArithmeticError("past ten")
        return images

    with pytest.raises(ArithmeticError, match="past ten"):
        Pieces(brittle, 2).run(IMAGES)


@pytest.mark.parametrize(
    ("batch_ms", "size"),
    [
        ({1: 1.0}, 1),
        ({1: 1.0, 2: 1.5, 4: 2.5, 8: 6.0}, 4),
        ({1: 1.0, 2: 1.9, 4: 3.7}, 4),
        ({1: 1.0, 2: 2.1, 4: 4.2}, 1),
    ],
)
def test_the_fastest_batch_is_that_with_the_most_images_a_second(batch_ms: dict[int, float], size: int) -> None:
    assert fastest_batch(batch_ms) == size
