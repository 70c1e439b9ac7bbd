"""Small files with large dimensions, or slow to decompress, are rejected before they use memory or time."""

import json
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import BadImage, ConvoyError, ImageTooLarge
from service.imaging import limits
from service.imaging.decode import decode, open_image
from service.imaging.limits import (
    DECODED_BYTES_PER_PIXEL,
    MAX_SCANS,
    MAX_SIDE_PX,
    RUN_LENGTH_COST,
    DecodeLimits,
)
from tests.support.png_writer import END, chunk, encode_png, header
from tests.unit.service.pixels import BLACK, encode_image, exif_bytes, noise_image

PIXELS = 25_000_000  # the service's default limit
LIMITS = DecodeLimits(PIXELS)
BODY_BYTES = 16 * 1024 * 1024
SIDE = 65_500


def patched(file: bytes, at: int, replacement: bytes) -> bytes:
    return file[:at] + replacement + file[at + len(replacement) :]


def jpeg_of(side: int) -> bytes:
    file = encode_image(Image.fromarray(noise_image()), "JPEG")
    return patched(file, file.index(b"\xff\xc0") + 5, struct.pack(">HH", side, side))


def gif_of(screen: int, frame: int, disposal: int = 0) -> bytes:
    control = b"!\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0])
    descriptor = b"," + struct.pack("<HHHHB", 0, 0, frame, frame, 0)
    head = b"GIF89a" + struct.pack("<HHBBB", screen, screen, 0x80, 0, 0) + noise_image(2, 1).tobytes()
    return head + control + descriptor + b"\2\2D\1\0;"


def animated_webp_of(side: int) -> bytes:
    frames = [Image.fromarray(noise_image(seed=seed)) for seed in (1, 2)]
    file = encode_image(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    return patched(file, 24, (side - 1).to_bytes(3, "little") * 2)


def lossless_webp_of(side: int) -> bytes:
    file = encode_image(Image.fromarray(noise_image()), "WEBP", lossless=True)
    return patched(file, 21, struct.pack("<L", (side - 1) | (side - 1) << 14))


def bmp_of(width: int, height: int) -> bytes:
    return patched(encode_image(Image.fromarray(noise_image()), "BMP"), 18, struct.pack("<LL", width, height))


BOMBS = {
    "png": header(SIDE, SIDE) + chunk(b"IDAT", zlib.compress(bytes(1000))) + END,
    "png-8-GB-wide": header(2**31 - 1, 4) + chunk(b"IDAT", b"") + END,
    "jpeg": jpeg_of(SIDE),
    "gif-screen": gif_of(SIDE, 4),
    "gif-frame": gif_of(4, SIDE),
    "gif-frame-that-is-disposed-of": gif_of(4, 9_000, disposal=2),  # Pillow alone accepts this size
    "webp-animated": animated_webp_of(16_000),
    "webp-lossless": lossless_webp_of(16_000),
    "bmp": bmp_of(2**31 - 1, 2**31 - 1),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_too_large(name: str) -> None:
    with pytest.raises(ImageTooLarge, match="25000000"):
        open_image(BOMBS[name], LIMITS)


OPEN_EACH = """
import json, pathlib, sys
from service.errors import ImageTooLarge
from service.imaging.decode import open_image
from service.imaging.limits import DecodeLimits

def peak_kib():
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

before, grown = peak_kib(), {}
for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        open_image(file.read_bytes(), DecodeLimits(int(sys.argv[2])))
    except ImageTooLarge:
        grown[file.name] = peak_kib() - before
print(json.dumps(grown))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc: the peak of memory cannot be read")
def test_bombs_take_no_memory(tmp_path: Path) -> None:
    for name, file in BOMBS.items():
        (tmp_path / name).write_bytes(file)
    command = [sys.executable, "-c", OPEN_EACH, str(tmp_path), str(PIXELS)]
    growth_kib = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert growth_kib.keys() == BOMBS.keys()
    assert max(growth_kib.values()) < 8 * 1024, growth_kib


def test_the_limit_itself_is_allowed() -> None:
    file = encode_png(np.zeros((20, 30, 1), np.uint8), 8, 0)
    assert decode(file, 1, BLACK, max_pixels=600).shape == (20, 30, 1)
    with pytest.raises(ImageTooLarge, match="599"):
        decode(file, 1, BLACK, max_pixels=599)


@pytest.mark.parametrize("kind", ["webp", "webp lossless", "cmyk", "progressive"])
def test_formats_that_take_twice_the_memory_count_twice(kind: str) -> None:
    photo = Image.new("CMYK" if kind == "cmyk" else "RGB", (30, 20))
    if "webp" in kind:
        file = encode_image(photo, "WEBP", lossless="lossless" in kind)
    else:
        file = encode_image(photo, "JPEG", progressive=kind == "progressive")
    assert open_image(file, DecodeLimits(1200)).cost.memory_bytes == 2 * 20 * 30 * DECODED_BYTES_PER_PIXEL
    assert decode(file, 3, BLACK, max_pixels=1200).shape == (20, 30, 3)
    with pytest.raises(
        ImageTooLarge, match="more than 1199 pixels, the limit, or half of that for WebP, CMYK and progressive"
    ):
        decode(file, 3, BLACK, max_pixels=1199)


READ = """
import pathlib, sys
from service.imaging.decode import decode

def peak_kib():
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

file = pathlib.Path(sys.argv[1]).read_bytes()
before = peak_kib()
decode(file, 3, 0, int(sys.argv[2]))
print(peak_kib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc: the peak of memory cannot be read")
@pytest.mark.parametrize("kind", ["webp", "webp turned", "cmyk", "turned"])
def test_the_largest_images_take_at_most_250_mb(tmp_path: Path, kind: str) -> None:
    side = (5000, 5000) if kind == "turned" else (5000, 2500)
    photo = Image.linear_gradient("L").resize(side).convert("CMYK" if kind == "cmyk" else "RGB")
    options = {"exif": b"Exif\0\0" + exif_bytes(6)} if "turned" in kind else {}
    webp = {"method": 0} | options
    file = (
        encode_image(photo, "WEBP", **webp)
        if "webp" in kind
        else encode_image(photo, "JPEG", progressive=kind == "cmyk", **options)
    )
    (tmp_path / "image").write_bytes(file)
    command = [sys.executable, "-c", READ, str(tmp_path / "image"), str(PIXELS)]
    growth_kib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert growth_kib < 250_000


@pytest.mark.parametrize("shape", [(1, MAX_SIDE_PX), (MAX_SIDE_PX, 1), (1, MAX_SIDE_PX + 1), (MAX_SIDE_PX + 1, 1)])
def test_no_side_is_longer_than_the_limit(shape: tuple[int, int]) -> None:
    file = encode_png(np.zeros((*shape, 1), np.uint8), 8, 0)
    if max(shape) <= MAX_SIDE_PX:
        assert decode(file, 1, BLACK, PIXELS).shape == (*shape, 1)
    else:
        with pytest.raises(ImageTooLarge, match="a side of more than 65535 pixels"):
            open_image(file, LIMITS)


def filled(before: bytes, chunk_bytes: bytes, after: bytes) -> bytes:
    """Returns a file with as many pieces as fit into a body."""
    return before + chunk_bytes * ((BODY_BYTES - len(before) - len(after)) // len(chunk_bytes)) + after


def floods() -> dict[str, bytes]:
    """Returns bodies of 16 MB made of the smallest chunks of a format."""
    png_file = encode_png(noise_image(8, 8), 8, 2)
    start, pixels = png_file[:33], png_file[33 : -len(END)]
    jpeg = encode_image(Image.fromarray(noise_image()), "JPEG")
    gif = gif_of(8, 8)
    frame = gif.index(b"!")
    return {
        "png chunks": filled(start, chunk(b"prVt", b""), pixels + END),
        "png pieces of pixels": filled(start + chunk(b"IDAT", b"\x78\x9c"), chunk(b"IDAT", b""), END),
        "png chunks after the pixels": filled(start + pixels, chunk(b"prVt", b""), END),
        "jpeg comments": filled(jpeg[:2], b"\xff\xfe\0\2", jpeg[2:]),
        "jpeg exif": filled(jpeg[:2], b"\xff\xe1\0\x6cExif\0\0" + bytes(100), jpeg[2:]),
        "gif comment": filled(gif[:frame] + b"!\xfe", b"\1a", b"\0" + gif[frame:]),
    }


FLOODS = floods()


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_small_parts_costs_little_time(name: str) -> None:
    started_s = time.thread_time()
    with pytest.raises(ConvoyError, match="small parts"):
        decode(FLOODS[name], 1, BLACK, PIXELS)
    assert time.thread_time() - started_s < 3


@pytest.mark.parametrize("is_behind_the_pixels", [False, True])
def test_a_png_with_two_color_profiles_is_rejected(is_behind_the_pixels: bool) -> None:
    profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(1_000_000)))
    start, pixels = header(4, 4), chunk(b"IDAT", zlib.compress(bytes(20)))
    one, two = (
        b"".join([start, *([pixels, profile * count] if is_behind_the_pixels else [profile * count, pixels]), END])
        for count in (1, 2)
    )
    assert decode(one, 1, BLACK, PIXELS).shape == (4, 4, 1)
    with pytest.raises(BadImage, match="more than one color profile"):
        decode(two, 1, BLACK, PIXELS)


def test_a_jpeg_of_endless_scans_is_rejected() -> None:
    file = encode_image(Image.new("L", (400, 400)), "JPEG", progressive=True)
    last = file[file.rindex(b"\xff\xda") : -2]
    hidden_end = b"\xff\xfe\0\4\xff\xd9"  # within a comment, where it does not end the image
    decode(file[:-2] + last * 10 + file[-2:], 1, BLACK, PIXELS)
    for chunk_bytes in (last, hidden_end + last, last + b"\xff\xff\xff", last + b"\xff\xd0"):
        with pytest.raises(ConvoyError, match="scans"):
            open_image(file[:-2] + chunk_bytes * MAX_SCANS + file[-2:], LIMITS)


def test_endless_segments_between_the_scans_of_a_jpeg_are_rejected() -> None:
    file = encode_image(Image.new("L", (40, 40)), "JPEG", progressive=True)
    started_s = time.thread_time()
    with pytest.raises(ConvoyError, match="segments"):
        open_image(filled(file[:-2], b"\xff\xfe\0\2", file[-2:]), LIMITS)
    assert time.thread_time() - started_s < 1


def test_a_video_behind_a_jpeg_is_not_taken_for_scans() -> None:
    file = encode_image(Image.fromarray(noise_image()), "JPEG")
    video = np.random.default_rng(0).bytes(10_000_000)
    assert video.count(b"\xff\xda") > MAX_SCANS
    np.testing.assert_array_equal(decode(file + video, 3, BLACK, PIXELS), decode(file, 3, BLACK, PIXELS))


def run_length_encoded_bmp(width: int, height: int, runs: bytes) -> bytes:
    info = struct.pack("<LLLHHLLLLLL", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<LLL", 0, 0, 14 + 40 + 1024) + info + noise_image(256, 1, 4).tobytes() + runs


def test_a_large_run_length_encoded_bmp_is_rejected() -> None:
    limits = DecodeLimits(RUN_LENGTH_COST * 100 * 100)
    assert open_image(run_length_encoded_bmp(100, 100, b"\0\1"), limits).cost.time_pixels == limits.max_pixels
    with pytest.raises(ImageTooLarge, match="run-length encoded; the limit for such images is 10000 pixels"):
        open_image(run_length_encoded_bmp(101, 100, b"\0\1"), limits)


def test_a_run_length_encoded_bmp_may_have_a_run_per_pixel() -> None:
    row = b"".join(bytes([1, value]) for value in range(200)) + b"\0\0"
    file = run_length_encoded_bmp(200, 100, row * 100 + b"\0\1")
    assert decode(file, 3, BLACK, LIMITS.max_pixels).shape == (100, 200, 3)


@pytest.mark.parametrize("nothing", [b"\0\2\0\0", b"\1\1"])
def test_a_run_length_encoded_bmp_of_endless_nothing_is_rejected(nothing: bytes) -> None:
    file = run_length_encoded_bmp(20, 20, b"\x14\1" + nothing * 10_000)
    with pytest.raises(BadImage, match="too many small parts"):
        decode(file, 3, BLACK, LIMITS.max_pixels)


def test_an_image_with_a_thousand_frames_costs_its_first() -> None:
    frames = [Image.fromarray(np.full((16, 16), number % 256, np.uint8)) for number in range(1000)]
    for image_format in ("GIF", "PNG", "WEBP"):
        file = encode_image(frames[0], image_format, save_all=True, append_images=frames[1:], duration=10)
        started_s = time.thread_time()
        assert decode(file, 1, BLACK, PIXELS).shape == (16, 16, 1)
        assert time.thread_time() - started_s < 2


def test_a_strange_file_writes_nothing_to_the_log(tmp_path: Path) -> None:
    tags = b"".join(struct.pack("<HHLL", number, 1, 10**6, 8) for number in range(1, 100))
    data = b"Exif\0\0II*\0" + struct.pack("<LH", 8, 99) + tags + bytes(4)
    (tmp_path / "strange.jpg").write_bytes(encode_image(Image.fromarray(noise_image()), "JPEG", exif=data))
    program = (
        "import sys; from service.imaging.decode import decode; decode(open(sys.argv[1], 'rb').read(), 1, 0, 10**6)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "strange.jpg")]
    assert subprocess.run(command, check=True, capture_output=True).stderr == b""


@pytest.mark.parametrize("search_bytes", [1, 2, 7, 1000])
def test_segments_are_counted_however_they_lie_in_the_slices(
    monkeypatch: pytest.MonkeyPatch, search_bytes: int
) -> None:
    monkeypatch.setattr(limits, "SEARCH_BYTES", search_bytes)
    photo = encode_image(Image.new("RGB", (30, 20)), "JPEG", progressive=True)
    scans = photo.count(b"\xff\xda")
    assert scans > 1
    monkeypatch.setattr(limits, "MAX_SCANS", scans)
    open_image(photo, DecodeLimits(1200))
    monkeypatch.setattr(limits, "MAX_SCANS", scans - 1)
    with pytest.raises(ConvoyError, match="more than"):
        open_image(photo, DecodeLimits(1200))
