"""The queue keeps no data of finished requests, and a large request runs only if all of it can be in time."""

import asyncio
import gc
import weakref
from collections import deque
from typing import Any

import numpy as np
import pytest

from service.errors import DeadlineExceeded, ExpiredInQueue
from service.inference.admission import Admission
from service.inference.batch import BatchSlice, QueuedRequest
from service.inference.request_queue import (
    INTERACTIVE_RECENT_S,
    MAX_BACKGROUND_RUN_S,
    MIN_PURGED,
    RequestQueue,
)
from service.inference.run_times import MIN_SAFETY_FACTOR, RunTimes
from tests.unit.service.batching import run_in_manual_time


def queue_of(run_s_by_size: dict[int, float] | None = None, instances: int = 1) -> tuple[RequestQueue, Admission]:
    run_times = RunTimes(4, run_s_by_size)
    admission = Admission(run_times, max_queue_images=10_000, batch_size=4, instances=instances)
    return RequestQueue(admission, run_times, instances), admission


def request(count: int, due_s: float = float("inf"), background: bool = False) -> QueuedRequest:
    future = asyncio.get_running_loop().create_future()
    return QueuedRequest(np.zeros((count, 100)), future, 0.0, due_s=due_s, background=background)


def test_requests_done_while_the_model_hangs_release_pixels_and_slots() -> None:
    """Their pixels used to stay in the queue although it reported 0 images, so memory grew while the model hung."""

    async def test() -> None:
        queue, admission = queue_of()
        pixels = []
        for _ in range(2 * MIN_PURGED + 2):
            one = request(2)
            admission.reserve(2)
            queue.append(one)
            pixels.append(weakref.ref(one.images))
            one.future.cancel()
            queue.discard(one)
        del one
        gc.collect()
        assert admission.queued_images == 0
        assert not [reference for reference in pixels if reference() is not None]
        assert len(queue._interactive) <= MIN_PURGED

    run_in_manual_time(test)


def test_the_rest_of_a_done_request_is_not_run_and_frees_its_slots() -> None:
    async def test() -> None:
        queue, admission = queue_of()
        large, small = request(6), request(1)
        for one in (large, small):
            admission.reserve(len(one.images))
            queue.append(one)
        assert [len(part.images) for part in queue.form_batch(4, 0.0, drop_late=True)] == [4]
        large.future.cancel()
        (part,) = queue.form_batch(4, 0.0, drop_late=True)
        assert part.request is small
        assert admission.queued_images == 0
        assert queue.form_batch(4, 0.0, drop_late=True) == []

    run_in_manual_time(test)


def test_background_images_that_are_done_or_run_no_longer_count_as_waiting() -> None:
    """Four interactive images are queued, and a new request has four more. Each takes 0.25 s. Background images do not
    count."""

    async def test() -> None:
        queue, admission = queue_of({1: 0.25, 4: 1.0})
        cancelled, run = request(2, background=True), request(2, background=True)
        for one in (cancelled, run):
            admission.reserve(2)
            queue.append(one)
        cancelled.future.cancel()
        queue.discard(cancelled)
        assert [part.request for part in queue.form_batch(4, 0.0, drop_late=True)] == [run]
        admission.reserve(4)
        assert admission.expected_done_s(4) == 2.0

    run_in_manual_time(test)


@pytest.mark.parametrize(
    ("slow", "now_s", "sizes"),
    [
        (4.0, 0.5, [(1, 0), (0, 1), (0, 1), (0, 1)]),
        (1.0, 0.5, [(1, 0), (0, 1), (0, 1), (0, 1)]),
        (0.5, 0.5, [(1, 1), (0, 2), (0, 2), (0, 2)]),
        (0.1, 0.5, [(1, 3), (0, 4), (0, 1), (0, 0)]),
        (4.0, INTERACTIVE_RECENT_S, [(1, 3), (0, 4), (0, 1), (0, 0)]),
    ],
)
def test_background_images_take_what_interactive_requests_leave(
    slow: float, now_s: float, sizes: list[tuple[int, int]]
) -> None:
    """Each image takes `slow` times MAX_BACKGROUND_RUN_S, and eight background images wait. A client that requested
    explanations used to make all other requests wait for a full batch of background images."""

    async def test() -> None:
        image_s = slow * MAX_BACKGROUND_RUN_S
        queue, admission = queue_of({1: image_s, 4: 4 * image_s})
        for one in (request(8, background=True), request(1)):
            admission.reserve(len(one.images))
            queue.append(one)
        for interactive, background in sizes:
            counts = [0, 0]
            for part in queue.form_batch(4, now_s, drop_late=True):
                counts[part.request.background] += len(part.images)
            assert counts == [interactive, background]

    run_in_manual_time(test)


def test_a_request_begins_with_its_first_batch() -> None:
    async def test() -> None:
        queue, admission = queue_of()
        large = request(6)
        admission.reserve(6)
        queue.append(large)
        for now_s in (1.0, 3.0):
            queue.form_batch(4, now_s, drop_late=True)
        assert large.started_s == 1.0

    run_in_manual_time(test)


@pytest.mark.parametrize(
    ("due_s", "others_due_s", "batches"),
    [
        (
            float("inf"),
            0.3 * MIN_SAFETY_FACTOR,
            [[1], [1]],
        ),  # in one batch with the first image, the second would be late
        (0.6 * MIN_SAFETY_FACTOR, float("inf"), [[1, 1], [1]]),  # a third image would make the first one late
    ],
)
def test_a_batch_ends_before_an_image_that_would_make_one_of_its_requests_late(
    due_s: float, others_due_s: float, batches: list[list[int]]
) -> None:
    """A run takes 0.25 s per image."""

    async def test() -> None:
        queue, admission = queue_of({1: 0.25, 4: 1.0})
        for due in [due_s] + [others_due_s] * (sum(map(len, batches)) - 1):
            admission.reserve(1)
            queue.append(request(1, due))
        formed = [queue.form_batch(4, 0.0, drop_late=True) for _ in batches]
        assert [[len(part.images) for part in batch] for batch in formed] == batches

    run_in_manual_time(test)


@pytest.mark.parametrize(("due_s", "is_run"), [(2.74, False), (2.76, True)])
def test_a_large_request_is_run_only_if_its_last_batch_is_in_time(due_s: float, is_run: bool) -> None:
    """Ten images in batches of four run for 1 s, 1 s and 0.5 s. With the safety factor of 1.1, this is 2.75 s."""

    async def test() -> None:
        queue, admission = queue_of({1: 0.25, 4: 1.0})
        large = request(10, due_s)
        admission.reserve(10)
        queue.append(large)
        assert bool(queue.form_batch(4, 0.0, drop_late=True)) == is_run
        assert large.future.done() != is_run
        assert isinstance(large.future.exception() if not is_run else ExpiredInQueue(""), ExpiredInQueue)
        assert admission.queued_images == (6 if is_run else 0)

    run_in_manual_time(test)


@pytest.mark.parametrize(("count", "due_s", "is_run"), [(8, 1.09, False), (8, 1.11, True), (4, 1.09, False)])
def test_the_batches_of_a_large_request_run_side_by_side_on_several_instances(
    count: int, due_s: float, is_run: bool
) -> None:
    """The queue used to drop such a request as late, although admission control had accepted it."""

    async def test() -> None:
        queue, admission = queue_of({1: 0.25, 4: 1.0}, instances=2)
        large = request(count, due_s)
        admission.reserve(count)
        queue.append(large)
        assert bool(queue.form_batch(4, 0.0, drop_late=True)) == is_run
        assert large.future.done() != is_run

    run_in_manual_time(test)


def test_a_late_request_does_not_end_the_batch_before_the_requests_behind_it() -> None:
    async def test() -> None:
        queue, admission = queue_of({1: 0.25, 4: 1.0})
        first, late, last = request(1, 5.0), request(1, 0.2), request(1, 5.0)
        for one in (first, late, last):
            admission.reserve(1)
            queue.append(one)
        assert [part.request for part in queue.form_batch(4, 0.0, drop_late=True)] == [first, last]
        assert isinstance(late.future.exception(), ExpiredInQueue)
        assert admission.queued_images == 0

    run_in_manual_time(test)


def test_a_late_request_is_run_as_a_probe_of_the_model() -> None:
    async def test() -> None:
        queue, admission = queue_of({1: 0.25, 4: 1.0})
        late = request(4, 0.5)
        admission.reserve(4)
        queue.append(late)
        assert [len(part.images) for part in queue.form_batch(4, 0.0, drop_late=False)] == [4]

    run_in_manual_time(test)


def test_a_request_that_becomes_late_after_a_part_of_it_has_run_is_not_called_expired_in_the_queue() -> None:
    async def test() -> None:
        queue, admission = queue_of({1: 0.25, 4: 1.0})
        large = request(8, 2.5)
        admission.reserve(8)
        queue.append(large)
        assert [len(part.images) for part in queue.form_batch(4, 0.0, drop_late=True)] == [4]
        assert queue.form_batch(4, 2.0, drop_late=True) == []
        assert type(large.future.exception()) is DeadlineExceeded
        assert admission.queued_images == 0

    run_in_manual_time(test)


def test_an_error_while_a_batch_forms_fails_the_requests_for_which_it_was_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Images that are already in the batch have left the queue: if their requests did not fail, they would never end.
    The requests behind the one that raised the error run next."""

    async def test() -> None:
        queue, admission = queue_of()
        taken, raising, behind = request(1), request(1), request(1)
        for one in (taken, raising, behind):
            admission.reserve(1)
            queue.append(one)
        take = queue._take

        def take_or_raise(requests: deque[QueuedRequest], one: QueuedRequest, *arguments: Any) -> BatchSlice:
            if one is raising:
                raise MemoryError("no memory")
            return take(requests, one, *arguments)

        monkeypatch.setattr(queue, "_take", take_or_raise)
        with pytest.raises(MemoryError):
            queue.form_batch(4, 0.0, drop_late=True)
        assert [type(one.future.exception()) for one in (taken, raising)] == [MemoryError, MemoryError]
        queue.discard(taken)
        assert [part.request for part in queue.form_batch(4, 0.0, drop_late=True)] == [behind]

    run_in_manual_time(test)
