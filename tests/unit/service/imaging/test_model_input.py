"""JPEGs decoded at a reduced scale give nearly the same model input as a full decode, at a lower cost."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from service.errors import BadImage, ImageTooLarge
from service.imaging.decode import OpenedImage, read_pixels
from service.imaging.limits import DECODED_BYTES_PER_PIXEL, MAX_SCANS, DecodeLimits
from service.imaging.model_input import open_for_model, read_model_input
from service.model_store.manifest import Input, Preprocessing
from tests.data.jpeg_scale.record import FILE, IMAGES, jpeg, scene
from tests.unit.service.pixels import encode_image, exif_bytes

MODEL_INPUT = Input(height=32, width=40, channels=3)
LIMITS = DecodeLimits(25_000_000, 100_000_000)
SQUASH: dict[str, Any] = {}
CROP: dict[str, Any] = {"resize": "shorter", "shorter": 46}
FULL_48_MEGAPIXELS = 8000 * 6000


def model_input(encoded: bytes, *, jpeg_scale: bool, channels: int = 3, **preprocessing: Any) -> np.ndarray:
    spec = Preprocessing(jpeg_scale=jpeg_scale, **preprocessing)
    return read_model_input(encoded, MODEL_INPUT.model_copy(update={"channels": channels}), spec, LIMITS).astype(int)


def opened(encoded: bytes, limits: DecodeLimits = LIMITS, side: int = 28, **preprocessing: Any) -> OpenedImage:
    spec = Preprocessing(jpeg_scale=True, **preprocessing)
    return open_for_model(encoded, Input(height=side, width=side, channels=3), spec, limits)


def with_size(encoded: bytes, width: int, height: int) -> bytes:
    """Returns the file with a different size in its header."""
    start = max(encoded.find(b"\xff\xc0"), encoded.find(b"\xff\xc2")) + 5
    return encoded[:start] + height.to_bytes(2) + width.to_bytes(2) + encoded[start + 4 :]


@pytest.mark.parametrize("preprocessing", [SQUASH, CROP], ids=["squash", "crop"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(663, 441), (441, 665), (385, 387)])
def test_every_orientation_gives_the_input_of_a_full_decode(
    size: tuple[int, int], orientation: int, preprocessing: dict[str, Any]
) -> None:
    file = encode_image(scene(*size), "JPEG", quality=95, exif=b"Exif\0\0" + exif_bytes(orientation))
    full, reduced = (model_input(file, jpeg_scale=scale, **preprocessing) for scale in (False, True))
    assert 0 < np.abs(full - reduced).max() <= 8  # otherwise one decode would be compared with itself
    assert np.abs(full - reduced).mean() < 0.5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"subsampling": "4:2:0"}),
        ("RGB", {"subsampling": "4:4:4"}),
        ("RGB", {"progressive": True}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
def test_every_form_of_jpeg_gives_the_input_of_a_full_decode(mode: str, options: dict[str, Any], channels: int) -> None:
    file = encode_image(scene(663, 441).convert(mode), "JPEG", quality=95, **options)
    full, reduced = (model_input(file, jpeg_scale=scale, channels=channels) for scale in (False, True))
    assert 0 < np.abs(full - reduced).max() <= 8
    assert np.abs(full - reduced).mean() < 0.5


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_padding_beyond_an_odd_edge_does_not_move_the_image(orientation: int) -> None:
    """65 columns at 1/8 give 9 columns, and the last of them covers 1 of the 65 columns.

    If the last column counted in full, it would shift the image by 11%.
    """
    ramp = Image.linear_gradient("L").rotate(90).resize((65, 65))
    file = encode_image(ramp, "JPEG", quality=100, exif=b"Exif\0\0" + exif_bytes(orientation))
    full, reduced = (
        read_model_input(file, Input(height=4, width=4, channels=1), Preprocessing(jpeg_scale=scale), LIMITS)
        for scale in (False, True)
    )
    assert opened(file, side=4).image.size == (9, 9)
    assert np.abs(full.astype(int) - reduced).max() <= 5


@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    orientation=st.integers(1, 8),
    preprocessing=st.sampled_from([SQUASH, CROP]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_no_image_is_reduced_below_twice_the_size_that_the_resize_asks_for(
    width: int, height: int, orientation: int, preprocessing: dict[str, Any]
) -> None:
    file = encode_image(Image.new("L", (width, height)), "JPEG", exif=b"Exif\0\0" + exif_bytes(orientation))
    spec = Preprocessing(jpeg_scale=True, **preprocessing)
    image = open_for_model(file, MODEL_INPUT, spec, LIMITS)
    assert image.full_size == (width, height)
    if orientation > 4:
        width, height = height, width
    shorter = spec.shorter
    asked_width, asked_height = (
        (MODEL_INPUT.width, MODEL_INPUT.height)
        if shorter is None
        else (round(width * shorter / min(width, height)), round(height * shorter / min(width, height)))
    )
    scale = min(width // (2 * asked_width), height // (2 * asked_height))
    expected = next((s for s in (8, 4, 2) if s <= scale), 1)
    if expected == 1:
        assert image.box is None
    else:
        assert image.box is not None
        left, top, right, bottom = image.box
        assert (right - left, bottom - top) == (width / expected, height / expected)
    pixels = read_pixels(image.image, 3, 0)
    assert pixels.shape[:2] == (-(-height // expected), -(-width // expected))


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_are_those_that_tensorflow_decodes_at_this_scale(name: str) -> None:
    with np.load(FILE) as recorded:
        expected = recorded[name].astype(int)
    image = opened(jpeg(name), side=IMAGES[name].side)
    actual = read_pixels(image.image, 3, 0).astype(int)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 2


def test_other_versions_and_other_formats_are_decoded_in_full() -> None:
    file = encode_image(scene(663, 441), "JPEG")
    model = Input(height=28, width=28, channels=3)
    assert open_for_model(file, model, Preprocessing(), LIMITS).image.size == (663, 441)
    assert opened(file).image.size == (166, 111)
    for image_format in ("PNG", "WEBP", "BMP"):
        assert opened(encode_image(scene(663, 441), image_format)).image.size == (663, 441)


@pytest.mark.parametrize("fields", [{"interpolation": "nearest"}, {"antialias": False}])
def test_reduced_decoding_requires_antialias(fields: dict[str, Any]) -> None:
    Preprocessing(**fields)
    with pytest.raises(ValidationError, match="jpeg_scale needs antialias"):
        Preprocessing(**fields, jpeg_scale=True)


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.95])
def test_a_truncated_jpeg_is_rejected_at_any_scale(keep: float) -> None:
    file = encode_image(scene(663, 441), "JPEG")
    with pytest.raises(BadImage, match="truncated"):
        model_input(file[: int(keep * len(file))], jpeg_scale=True)


def test_max_pixels_counts_decoded_pixels() -> None:
    file = encode_image(Image.new("L", (800, 600)), "JPEG")
    decoded_pixels = 100 * 75
    assert opened(file, DecodeLimits(decoded_pixels, 800 * 600)).cost.pixels == decoded_pixels
    with pytest.raises(ImageTooLarge, match="more than 7499 pixels"):
        opened(file, DecodeLimits(decoded_pixels - 1, 800 * 600))
    with pytest.raises(ImageTooLarge, match="more than 479999 pixels"):
        opened(file, DecodeLimits(decoded_pixels, 800 * 600 - 1))
    with pytest.raises(ImageTooLarge, match="more than 479999 pixels"):
        open_for_model(file, MODEL_INPUT, Preprocessing(), DecodeLimits(800 * 600 - 1, 10**6))


@pytest.mark.parametrize("is_progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("size", [(65_500, 65_500), (65_500, 16_000)])
def test_a_header_bomb_is_too_large_at_any_scale(size: tuple[int, int], is_progressive: bool) -> None:
    """At an eighth of its size, 65,500 x 16,000 would be within the limit for decoded pixels."""
    bomb = with_size(encode_image(scene(64, 64), "JPEG", progressive=is_progressive), *size)
    with pytest.raises(ImageTooLarge, match="more than 100000000 pixels"):
        opened(bomb)


def test_a_jpeg_may_be_as_large_as_any_image_where_the_bound_for_headers_is_lower() -> None:
    assert opened(encode_image(Image.new("L", (800, 600)), "JPEG"), DecodeLimits(800 * 600, 1)).box is not None


def interleaved_only_in_name(file: bytes) -> bytes:
    """Returns a baseline JPEG whose first scan has only one of three components, so that libjpeg stores all
    coefficients."""
    start = file.index(b"\xff\xda")
    return file[:start] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + file[start + 14 :]


@pytest.mark.parametrize("form", ["progressive", "baseline in several scans"])
def test_a_jpeg_with_buffered_coefficients_counts_with_its_full_size(form: str) -> None:
    file = encode_image(scene(64, 64), "JPEG", progressive=form == "progressive")
    if form != "progressive":
        file = interleaved_only_in_name(file)
    file = with_size(file, 8000, 6000)
    cost_bytes = DECODED_BYTES_PER_PIXEL * (FULL_48_MEGAPIXELS + 2 * 1000 * 750)
    limits = LIMITS._replace(max_decoded_bytes=cost_bytes)
    assert opened(file, limits).cost.memory_bytes == cost_bytes
    assert opened(file, limits).cost.time_pixels == 2 * FULL_48_MEGAPIXELS
    with pytest.raises(ImageTooLarge, match=f"takes {cost_bytes} bytes"):
        opened(file, limits._replace(max_decoded_bytes=cost_bytes - 1))
    # An image within max_pixels waits for memory like every other image.
    assert opened(file, DecodeLimits(2 * FULL_48_MEGAPIXELS, max_decoded_bytes=1)).box is not None


@pytest.mark.parametrize(("side", "scale"), [(28, 8), (1000, 2), (500, 4)])
def test_a_baseline_jpeg_counts_with_its_decoded_pixels_and_all_its_bytes(side: int, scale: int) -> None:
    """Each byte is entropy-decoded at any scale. Bytes after the end of the image, as in a motion photo, are not
    decoded."""
    file = with_size(encode_image(scene(64, 64), "JPEG"), 8000, 6000)
    cost = opened(file + bytes(10_000), side=side).cost
    assert cost.memory_bytes == DECODED_BYTES_PER_PIXEL * FULL_48_MEGAPIXELS // scale**2
    assert cost.time_pixels == FULL_48_MEGAPIXELS // scale + 2 * len(file)


def test_a_noisy_jpeg_counts_as_much_as_a_full_decode_and_not_more() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    file = encode_image(Image.fromarray(pixels), "JPEG", quality=95)
    assert 800 * 600 // 8 + 2 * len(file) > 800 * 600
    assert opened(file).cost.time_pixels == 800 * 600
    cmyk = encode_image(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=95)
    assert 2 * 800 * 600 // 8 + 2 * len(cmyk) > 2 * 800 * 600
    assert opened(cmyk).cost.time_pixels == 2 * 800 * 600


def test_large_progressive_jpegs_have_few_scans() -> None:
    """100 scans of 48 megapixels would take seconds, because each scan processes the coefficients of the full size."""
    file = encode_image(Image.new("L", (64, 64)), "JPEG", progressive=True)
    last = file[file.rindex(b"\xff\xda") : -2]
    large = with_size(file[:-2] + last * (MAX_SCANS // 2) + file[-2:], 8000, 6000)
    with pytest.raises(BadImage, match="scans, which is too many for 48000000 pixels"):
        opened(large)
    opened(with_size(file, 8000, 6000))


READ = """
import io, json, pathlib, sys
from service.imaging.limits import DecodeLimits
from service.imaging.model_input import open_for_model, read_opened
from service.model_store.manifest import Input, Preprocessing

def peak_kib():
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

model_input, preprocessing = Input(height=128, width=128, channels=3), Preprocessing(jpeg_scale=True)
grown = {}
for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    data = file.read_bytes()
    before = peak_kib()
    image = open_for_model(data, model_input, preprocessing, DecodeLimits(25_000_000, 100_000_000))
    read_opened(image, model_input, preprocessing)
    grown[file.name] = (peak_kib() - before, image.cost.memory_bytes / 1024)
print(json.dumps(grown))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc: the peak of memory cannot be read")
def test_a_photo_of_48_megapixels_takes_no_more_memory_than_it_counts(tmp_path: Path) -> None:
    photo = Image.linear_gradient("L").resize((8000, 6000))
    for name, options in (("1 baseline", {}), ("2 progressive", {"progressive": True})):
        (tmp_path / name).write_bytes(encode_image(photo, "JPEG", **options))
    command = [sys.executable, "-c", READ, str(tmp_path)]
    growth = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert growth.keys() == {"1 baseline", "2 progressive"}
    assert growth["1 baseline"][0] < 25 * 1024, growth
    assert 80 * 1024 < growth["2 progressive"][0] < growth["2 progressive"][1], growth


def test_an_mpo_file_is_its_first_frame() -> None:
    frames = [scene(663, 441), scene(663, 441).transpose(Image.Transpose.ROTATE_180)]
    file = io.BytesIO()
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:], quality=95)
    single = encode_image(frames[0], "JPEG", quality=95)
    for jpeg_scale in (False, True):
        actual, expected = (model_input(data, jpeg_scale=jpeg_scale) for data in (file.getvalue(), single))
        np.testing.assert_array_equal(actual, expected)
