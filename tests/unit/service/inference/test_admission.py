"""Admission control: which requests a queue accepts, what it reports to the others, and what a run changes."""

import pytest

from service.errors import Draining, Overloaded, TooManyImages
from service.inference.admission import SPEED_SMOOTHING, UNMEASURED_RETRY_S, Admission


def admission(max_queue_images: int = 100, max_batch_size: int = 4, instances: int = 1) -> Admission:
    return Admission(max_queue_images=max_queue_images, max_batch_size=max_batch_size, instances=instances)


def measured(run_s: float, images: int = 4, **options: int) -> Admission:
    """A queue whose model takes `run_s` for a batch of `images`."""
    one = admission(**options)
    one.record_run(images, run_s)
    return one


def test_a_queue_accepts_as_many_images_as_it_has_slots() -> None:
    queue = admission(max_queue_images=5)
    queue.reserve(3)
    queue.reserve(2)
    with pytest.raises(Overloaded, match="5 images are waiting already"):
        queue.reserve(1)
    queue.release(1)
    queue.reserve(1)
    assert queue.queued_images == 5


def test_a_rejected_request_takes_no_slot() -> None:
    queue = admission(max_queue_images=5)
    queue.reserve(3)
    with pytest.raises(Overloaded):
        queue.reserve(3)
    assert queue.queued_images == 3


def test_more_images_than_there_are_slots_fit_at_no_time() -> None:
    with pytest.raises(TooManyImages, match="6 images; at most 5 may wait"):
        admission(max_queue_images=5).reserve(6)


def test_the_check_before_decoding_rejects_what_only_an_empty_queue_would_accept() -> None:
    queue = admission(max_queue_images=5)
    queue.check_capacity(9)  # a rough count: `reserve` decides
    queue.reserve(1)
    with pytest.raises(Overloaded):
        queue.check_capacity(9)
    queue.check_capacity(4)
    with pytest.raises(Overloaded):
        queue.check_capacity(5)


def test_a_closed_queue_rejects_even_what_would_fit() -> None:
    queue = admission()
    assert not queue.is_closed
    queue.close()
    assert queue.is_closed
    with pytest.raises(Draining):
        queue.reserve(1)


@pytest.mark.parametrize(("instances", "expected_s"), [(1, 3.0), (2, 1.5)])
def test_the_retry_time_is_the_queue_at_the_measured_speed(instances: int, expected_s: float) -> None:
    queue = measured(run_s=2.0, images=4, max_queue_images=6, instances=instances)
    queue.reserve(6)
    assert queue.drain_s() == pytest.approx(expected_s)
    with pytest.raises(Overloaded) as rejected:
        queue.reserve(1)
    assert rejected.value.retry_after_s == pytest.approx(expected_s)


def test_before_the_first_run_the_retry_time_is_a_guess_and_nothing_is_late() -> None:
    queue = admission()
    queue.reserve(99)
    assert queue.drain_s() == UNMEASURED_RETRY_S
    assert queue.expected_wait_s() == 0
    queue.reserve(1, timeout_s=1e-9)


@pytest.mark.parametrize(
    ("queued", "instances", "expected_s"), [(3, 1, 0.0), (4, 1, 2.0), (7, 1, 2.0), (8, 1, 4.0), (8, 2, 2.0)]
)
def test_the_expected_wait_is_that_of_the_full_batches_ahead(queued: int, instances: int, expected_s: float) -> None:
    queue = measured(run_s=2.0, instances=instances)
    queue.reserve(queued)
    assert queue.expected_wait_s() == expected_s


def test_a_request_that_would_be_late_is_rejected_with_the_time_that_it_lacks() -> None:
    queue = measured(run_s=2.0)
    queue.reserve(8)
    with pytest.raises(Overloaded, match=r"would take 4\.0 s, longer than the request may") as rejected:
        queue.reserve(1, timeout_s=1.5)
    assert rejected.value.retry_after_s == 2.5
    queue.reserve(1, timeout_s=4.0)
    queue.reserve(1, timeout_s=0.0)  # its deadline has passed: the batcher reports that


def test_interactive_images_do_not_wait_for_background_images() -> None:
    queue = measured(run_s=2.0)
    queue.reserve(8, background=True)
    queue.enqueue_background(8)
    assert (queue.expected_wait_s(), queue.expected_wait_s(background=True)) == (0.0, 4.0)
    queue.release(4, background=True)
    queue.reserve(4)
    assert (queue.expected_wait_s(), queue.expected_wait_s(background=True)) == (2.0, 4.0)


def test_the_newest_run_counts_by_its_weight() -> None:
    queue = measured(run_s=2.0, images=4)
    queue.record_run(2, 3.0)
    assert queue.seconds_per_image == pytest.approx(0.5 + SPEED_SMOOTHING * (1.5 - 0.5))
    queue.reserve(4)
    assert queue.expected_wait_s() == pytest.approx(2.0 + SPEED_SMOOTHING * (3.0 - 2.0))
