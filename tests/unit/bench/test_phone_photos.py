"""Photos of a given size contain detail and noise, and the comparison of two decodings counts differences."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.bench import compare_checkouts
from tests.bench.decoding.phone_photos import NOISE, phone_photo, write_photos
from tests.bench.decoding.reduced_scale import Comparison
from tests.bench.errors import CannotMeasure
from tests.unit.bench.test_compare_checkouts import plan

SIZE = (403, 302)


def test_a_photo_has_the_size_the_image_and_noise() -> None:
    photo = Image.open(io.BytesIO(phone_photo(Image.linear_gradient("L"), SIZE, 0)))
    assert (photo.size, photo.mode, photo.format) == (SIZE, "RGB", "JPEG")
    pixels = np.asarray(photo.convert("L")).astype(float)
    assert pixels[-50:].mean() - pixels[:50].mean() > 100
    smooth = np.asarray(photo.convert("L").filter(ImageFilter.GaussianBlur(3))).astype(float)
    assert 1 < (pixels - smooth).std() < 2 * NOISE


def test_photos_differ_in_their_noise() -> None:
    gray = Image.new("L", (40, 30), 100)
    assert phone_photo(gray, SIZE, 0) == phone_photo(gray, SIZE, 0) != phone_photo(gray, SIZE, 1)


def test_checkouts_are_sent_photos_of_the_stated_size(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for number in range(compare_checkouts.MAX_PHOTOS + 1):
        Image.linear_gradient("L").save(sources / f"{number:02}.png")
    sized = replace(plan(), images=sources, photo_size=SIZE)
    folder = compare_checkouts._photos(sized, tmp_path)
    assert folder is not None
    assert [Image.open(io.BytesIO(file.read_bytes())).size for file in folder.iterdir()] == [
        SIZE
    ] * compare_checkouts.MAX_PHOTOS
    assert compare_checkouts._photos(plan(), tmp_path) is None
    with pytest.raises(CannotMeasure, match="--images"):
        compare_checkouts._photos(replace(plan(), photo_size=SIZE), tmp_path)
    with pytest.raises(CannotMeasure, match="no image"):
        write_photos([], SIZE, tmp_path)


def test_a_comparison_counts_changed_classes_and_the_paired_difference() -> None:
    full = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]], np.float32)
    reduced = np.array([[0.8, 0.2], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]], np.float32)
    comparison = Comparison("photos", "int8", [8, 4, 8, 8], full, reduced, np.array([0, 0, 1, 0]))
    assert comparison.difference_points == -25
    assert comparison.row() == ["4 photos", "int8", "1/4, 1/8", "75.00%", "50.00%", "-25.00", "25.00%", "0.2000"]
    unknown = comparison._replace(labels=None)
    assert unknown.difference_points is None
    assert unknown.row()[3:6] == ["", "", ""]
