"""The pairs of loads differ only in the decoder, and the counted fraction of a reduced decode is that of the
service."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.imaging.decode import decode
from service.imaging.fast_png import decode_simple_png
from service.model_store.manifest import Preprocessing
from service.model_store.repository import Repository
from tests.bench.decoding.jpeg_cost import measure_shares
from tests.bench.decoding.paired_loads import DIGIT_MODEL, FULL_SCALE, PHOTO_MODEL, with_chunk, write_models
from tests.bench.decoding.phone_photos import phone_photo
from tests.support.images import image_bytes
from tests.support.model_versions import write_version

MAX_PIXELS = 1000


def test_a_png_with_one_more_chunk_is_left_to_pillow_and_has_the_same_pixels() -> None:
    png = image_bytes(28, 28)
    simple, other = (decode_simple_png(data, 1, MAX_PIXELS) for data in (png, with_chunk(png)))
    assert simple is not None
    assert other is None
    np.testing.assert_array_equal(decode(with_chunk(png), 1, 0, MAX_PIXELS), simple)


def test_the_model_for_photos_is_served_once_more_without_a_reduced_scale(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_version(source, PHOTO_MODEL, preprocessing=Preprocessing(jpeg_scale=True))
    write_version(source, DIGIT_MODEL)
    models = Repository(write_models(source, tmp_path / "models"))
    scaled, full = (models.open(name, 1).manifest for name in (PHOTO_MODEL, FULL_SCALE))
    assert (scaled.preprocessing.jpeg_scale, full.preprocessing.jpeg_scale) == (True, False)
    assert full.variants == scaled.variants
    assert models.versions(DIGIT_MODEL) == [1]


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_counted_share_is_that_of_the_service(scale: int) -> None:
    photo = phone_photo(Image.linear_gradient("L"), (640, 480), seed=0, noise=0)
    shares = measure_shares(photo, scale, rounds=1)
    assert shares.counted == pytest.approx(1 / scale + 2 * len(photo) / (640 * 480), abs=1e-5)
    assert measure_shares(phone_photo(Image.linear_gradient("L"), (640, 480), 0, progressive=True), 8, 1).counted == 1
