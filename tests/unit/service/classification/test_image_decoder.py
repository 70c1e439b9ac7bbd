"""The image decoder: large images are separate jobs, and slow work never runs on the event loop."""

import asyncio
import threading
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.classification import image_decoder
from service.classification.classifier import Classifier
from service.classification.image_decoder import MAX_CHUNK_BYTES, MAX_CHUNK_IMAGES, split_into_chunks
from service.errors import BadImage, ImageTooLarge, TooLateToStart
from service.fair_threads import Owner
from service.imaging import decode_pool, model_input
from service.imaging.limits import DECODED_BYTES_PER_PIXEL
from service.imaging.pixel_budget import PixelBudget
from service.loaded_models.registry import Registry
from service.model_store.manifest import Preprocessing
from tests.support.images import image_bytes
from tests.support.model_versions import write_version
from tests.support.png_writer import END, chunk, header
from tests.unit.service.classification.classifiers import OverlapDetector, predict, predict_many, with_classifier
from tests.unit.service.pixels import encode_image

ANSWERS: list[Callable[[Classifier, bytes], Awaitable[Any]]] = [
    predict,
    lambda classifier, data: predict_many(classifier, [data]),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_version(tmp_path, "linear")
    return tmp_path


def make_large(monkeypatch: pytest.MonkeyPatch, work: int) -> None:
    """Images that need at least this work count as large."""
    for module in (decode_pool, image_decoder):
        monkeypatch.setattr(module, "LARGE_WORK", work)


@pytest.mark.parametrize("large_work", [0, 10_000, 1_000_000])
def test_results_do_not_depend_on_chunking(root: Path, monkeypatch: pytest.MonkeyPatch, large_work: int) -> None:
    """All images count as large, only the first of a chunk counts as small, or all count as small."""
    images = [image_bytes(44, 44, seed=seed, image_format="WEBP") for seed in range(3)]
    truncated = image_bytes(90, 90)[:-100]

    async def test(classifier: Classifier, registry: Registry) -> None:
        expected = [await predict(classifier, data) for data in images]
        make_large(monkeypatch, large_work)
        *rows, error = await predict_many(classifier, [*images, truncated])
        np.testing.assert_allclose(rows, expected, atol=1e-6)  # type: ignore[arg-type]
        assert isinstance(error, BadImage)
        np.testing.assert_allclose([await predict(classifier, data) for data in images], expected, atol=1e-6)
        with pytest.raises(BadImage):
            await predict(classifier, truncated)
        assert registry.get("linear").batcher.queued_images == 0

    with_classifier(root, test)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("large_work", [1_000, 10**11], ids=["large", "small"])
def test_images_that_cannot_be_decoded_in_time_are_rejected_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Classifier, bytes], Awaitable[Any]], large_work: int
) -> None:
    """Only the client with queued images is rejected, because decoders take turns between clients."""
    make_large(monkeypatch, large_work)
    data, hold = image_bytes(90, 90), threading.Event()

    async def test(classifier: Classifier, registry: Registry) -> None:
        large_job = classifier._decoder._decode_pool.run(Owner("", ("linear", False)), 10**10, hold.wait, 60)
        with pytest.raises(TooLateToStart):
            await answer(classifier, data)
        assert registry.get("linear").batcher.queued_images == 0
        text = classifier._metrics.to_text(classifier._metrics.families()).decode()
        assert 'convoy_refused_total{model="linear",priority="normal",reason="too_late_to_start"} 1.0' in text
        with classifier.context("linear", None) as context:
            context.client = "another"
            assert (await classifier.predict(context, data)).shape == (4,)
        hold.set()
        await large_job

    with_classifier(root, test)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(
    ("free_bytes", "together", "wait_s"),
    [(0, True, 10), (-4, False, 0.2), (-20_000, False, 0.2), (-60_000, False, 0.2)],
)
def test_a_large_and_a_small_image_never_take_more_than_the_memory_together(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[Classifier, bytes], Awaitable[Any]],
    free_bytes: int,
    together: bool,
    wait_s: float,
) -> None:
    """The large image takes three quarters of the memory, more than three quarters, all of it, or more than all of
    it."""
    make_large(monkeypatch, 15_000)
    large, small = image_bytes(90, 100, image_format="BMP"), image_bytes(50, 60, image_format="BMP")
    large_bytes, small_bytes = 90 * 100 * DECODED_BYTES_PER_PIXEL, 50 * 60 * DECODED_BYTES_PER_PIXEL
    assert large_bytes == 3 * small_bytes

    async def test(classifier: Classifier, registry: Registry) -> None:
        detector = OverlapDetector(wait_s)
        monkeypatch.setattr(model_input, "read_pixels", detector.read)
        # A batch is used, because a single small image is decoded on the event loop.
        await asyncio.gather(answer(classifier, large), predict_many(classifier, [small]))
        assert detector.overlapped == together

    with_classifier(root, test, max_decoded_bytes=large_bytes + small_bytes + free_bytes)


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_header_that_takes_long_is_not_opened_on_the_event_loop(
    root: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Classifier, bytes], Awaitable[Any]]
) -> None:
    threads, open_image = list[threading.Thread](), model_input.open_image

    def record_thread(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return open_image(*args)

    monkeypatch.setattr(model_input, "open_image", record_thread)
    text = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(1_000_000)))
    data = header(8, 8) + text + chunk(b"IDAT", zlib.compress(bytes(72))) + END

    async def test(classifier: Classifier, registry: Registry) -> None:
        await answer(classifier, data)
        assert threads
        assert threading.main_thread() not in threads

    with_classifier(root, test)


JPEG_SCALE = Preprocessing(background=0, jpeg_scale=True)


def test_a_large_jpeg_at_a_reduced_scale_counts_its_decoded_pixels_and_its_time(tmp_path: Path) -> None:
    """360 x 360 pixels at 1/8 are 2,025 pixels. They take the time of an eighth of the full size plus the time of the
    file's bytes."""
    write_version(tmp_path, "linear", preprocessing=JPEG_SCALE)
    photo = encode_image(Image.linear_gradient("L").resize((360, 360)), "JPEG")
    time_pixels = 360 * 360 // 8 + 2 * len(photo)
    assert time_pixels < 360 * 360

    async def test(classifier: Classifier, registry: Registry) -> None:
        rows = await predict_many(classifier, [photo])
        np.testing.assert_allclose(rows[0], await predict(classifier, photo), atol=1e-6)
        # All images are in one chunk, and the last one exceeds the limit.
        for pixels, is_rejected in ((2 * time_pixels - 1, True), (2 * time_pixels, False)):
            results = classifier._decoder._decode_chunk([photo] * 2, registry.get("linear"), PixelBudget(pixels))
            assert [isinstance(result, ImageTooLarge) for result in results] == [False, is_rejected]

    with_classifier(tmp_path, test, max_header_pixels=360 * 360)


def test_a_jpeg_that_is_small_only_at_a_reduced_scale_is_decoded_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version(tmp_path, "linear", preprocessing=JPEG_SCALE)
    threads: list[threading.Thread] = []
    read = model_input.read_pixels

    def read_and_record(image: Image.Image, channels: int, background: int) -> np.ndarray:
        threads.append(threading.current_thread())
        return read(image, channels, background)

    async def test(classifier: Classifier, registry: Registry) -> None:
        monkeypatch.setattr(model_input, "read_pixels", read_and_record)
        await predict(classifier, image_bytes(90, 90, image_format="JPEG"))
        await predict(classifier, image_bytes(60, 60, image_format="JPEG"))

    with_classifier(tmp_path, test)
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


@given(st.lists(st.one_of(st.integers(0, 2 * MAX_CHUNK_BYTES), st.none()), max_size=80))
def test_chunks_keep_the_order_and_their_size_limit(sizes: list[int | None]) -> None:
    """None represents an error at an image's position."""
    images = [BadImage("broken") if size is None else bytes(size) for size in sizes]
    chunks = list(split_into_chunks(images))
    assert [image for part in chunks for image in part] == images
    for part in chunks:
        size = sum(len(image) for image in part if isinstance(image, bytes))
        assert len(part) <= MAX_CHUNK_IMAGES
        assert size <= MAX_CHUNK_BYTES or len([p for p in part if isinstance(p, bytes)]) == 1


def test_tiny_images_share_chunks() -> None:
    assert len(list(split_into_chunks([bytes(300)] * 64))) == 64 // MAX_CHUNK_IMAGES
