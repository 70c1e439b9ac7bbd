"""Decoded images come in order, a bounded number ahead, and leave in full batches, whatever is broken between."""

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch_jobs.decode_processes import (
    AHEAD,
    MOST_IN_CHUNK,
    decoded_in_order,
    decoding_processes,
    in_full_batches,
)
from service.batch_jobs.decode_worker import Decoded, DecodeSpec
from service.batch_jobs.find_images import ImageFile
from service.errors import BadImage, Interrupted
from service.model_store.manifest import Input, Preprocessing
from tests.support.images import encode, random_pixels

RECIPE = DecodeSpec(Input(height=8, width=8, channels=1), Preprocessing(), max_pixels=100)


@given(broken=st.lists(st.booleans(), max_size=60), chunk=st.integers(1, 9), size=st.integers(1, 9))
def test_batches_are_full_and_keep_the_order(broken: list[bool], chunk: int, size: int) -> None:
    images = [ImageFile(str(at), "") for at in range(len(broken))]
    batches = list(in_full_batches(iter(_chunks(images, broken, chunk)), size))
    assert [image for batch in batches for image, _ in batch.entries] == images
    for batch in batches:
        good = [int(image.name) for image, error in batch.entries if error is None]
        assert batch.images[:, 0].tolist() == good
    assert all(len(batch.images) == size for batch in batches[:-1])


def _chunks(images: list[ImageFile], broken: list[bool], size: int) -> list[tuple[Sequence[ImageFile], Decoded]]:
    """Each good image's image holds its own number."""
    chunks: list[tuple[Sequence[ImageFile], Decoded]] = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        errors = [BadImage("broken") if broken[int(image.name)] else None for image in part]
        good = [int(image.name) for image, error in zip(part, errors, strict=True) if error is None]
        chunks.append((part, Decoded(np.array(good, np.uint8).reshape(-1, 1), list(errors))))
    return chunks


class LazyPool(Executor):
    """Does the work only when its outcome is asked for, and remembers how much was handed in."""

    def __init__(self, error: Exception | None = None) -> None:
        self.submitted = 0
        self._error = error

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        future: Future[Any] = Future()
        if self._error is not None:
            future.set_exception(self._error)
        else:
            future.set_result(Decoded(np.zeros((len(args[0]), 1), np.uint8), [None] * len(args[0])))
        return future


def test_only_so_much_is_decoded_ahead() -> None:
    pool, workers = LazyPool(), 2
    images = [ImageFile(str(at), "") for at in range(100 * MOST_IN_CHUNK)]
    decoded = decoded_in_order(pool, workers, images, RECIPE)
    chunk, _ = next(decoded)
    assert list(chunk) == images[:MOST_IN_CHUNK]
    assert pool.submitted == workers * AHEAD + 1
    assert sum(len(chunk) for chunk, _ in decoded) == len(images) - MOST_IN_CHUNK


def test_a_small_job_gives_all_workers_something() -> None:
    pool = LazyPool()
    list(decoded_in_order(pool, 4, [ImageFile(str(at), "") for at in range(20)], RECIPE))
    assert pool.submitted >= 4


def test_a_dead_process_is_told_with_the_images_it_had() -> None:
    pool = LazyPool(BrokenProcessPool("gone"))
    with pytest.raises(Interrupted, match=r"between a\.png and b\.png"):
        list(
            in_full_batches(decoded_in_order(pool, 1, [ImageFile("a.png", ""), ImageFile("b.png", "")] * 4, RECIPE), 4)
        )


class BrokenPool(LazyPool):
    """Takes `good` chunks; then one of its processes dies, which it tells whoever hands it more."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self._good = good

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.submitted == self._good:
            raise BrokenProcessPool("A child process terminated abruptly")
        return super().submit(fn, *args, **kwargs)


def test_a_process_that_died_while_nobody_waited_for_it_is_told_as_well() -> None:
    images = [ImageFile(str(at), "") for at in range(10 * MOST_IN_CHUNK)]
    with pytest.raises(Interrupted, match=f"between {5 * MOST_IN_CHUNK} and {6 * MOST_IN_CHUNK - 1}"):
        list(decoded_in_order(BrokenPool(5), 1, images, RECIPE))


def test_real_processes_decode(tmp_path: Path) -> None:
    pixels = [random_pixels(8, 8, seed=seed) for seed in range(6)]
    images = [ImageFile(str(at), str(tmp_path / f"{at}.png")) for at in range(6)]
    for image, content in zip(images, pixels, strict=True):
        Path(image.path).write_bytes(encode(content))
    with decoding_processes(1) as pool:
        batches = list(in_full_batches(decoded_in_order(pool, 1, images, RECIPE), 4))
    assert [len(batch.images) for batch in batches] == [4, 2]
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), pixels)
