"""Admission control: the requests that a queue accepts, the errors for the others, and the estimated waiting times."""

import pytest

from service.errors import DeadlineTooShort, Draining, QueueFull, TooLateToStart, TooManyImages
from service.inference.admission import UNMEASURED_RETRY_S, Admission
from service.inference.run_times import MIN_SAFETY_FACTOR, RunTimes


def admission(
    max_queue_images: int = 100, batch_size: int = 4, instances: int = 1, run_s_by_size: dict[int, float] | None = None
) -> Admission:
    run_times = RunTimes(batch_size, run_s_by_size)
    return Admission(run_times, max_queue_images=max_queue_images, batch_size=batch_size, instances=instances)


def measured(run_s: float, images: int = 4, **options: int) -> Admission:
    """A queue whose model takes `run_s` for a batch of `images`, and proportionally less for smaller batches."""
    return admission(run_s_by_size={1: run_s / images, images: run_s}, **options)


def test_a_queue_accepts_as_many_images_as_it_has_slots() -> None:
    queue = admission(max_queue_images=5)
    queue.reserve(3)
    queue.reserve(2)
    with pytest.raises(QueueFull, match="already has 5 images"):
        queue.reserve(1)
    queue.release(1)
    queue.reserve(1)
    assert queue.queued_images == 5


def test_a_rejected_request_takes_no_slot() -> None:
    queue = admission(max_queue_images=5)
    queue.reserve(3)
    with pytest.raises(QueueFull):
        queue.reserve(3)
    assert queue.queued_images == 3


def test_more_images_than_slots_are_always_rejected() -> None:
    with pytest.raises(TooManyImages, match="6 images, and the queue holds at most 5"):
        admission(max_queue_images=5).reserve(6)


def test_the_check_before_decoding_rejects_what_only_an_empty_queue_would_accept() -> None:
    queue = admission(max_queue_images=5)
    queue.check_capacity(9)  # a rough count: `reserve` decides
    queue.reserve(1)
    with pytest.raises(QueueFull):
        queue.check_capacity(9)
    queue.check_capacity(4)
    with pytest.raises(QueueFull):
        queue.check_capacity(5)
    queue.reserve(3)
    queue.check_capacity()  # one image


def test_a_closed_queue_rejects_even_what_would_fit() -> None:
    queue = admission()
    assert not queue.is_closed
    queue.close()
    assert queue.is_closed
    with pytest.raises(Draining, match=r"^The model is being unloaded\.$"):
        queue.reserve(1)


@pytest.mark.parametrize(("instances", "expected_s"), [(1, 3.0), (2, 1.5)])
def test_the_retry_time_is_the_queue_at_the_measured_speed(instances: int, expected_s: float) -> None:
    queue = measured(run_s=2.0, images=4, max_queue_images=6, instances=instances)
    queue.reserve(6)
    assert queue.drain_s() == pytest.approx(expected_s)
    with pytest.raises(QueueFull) as rejected:
        queue.reserve(1)
    assert rejected.value.retry_after_s == pytest.approx(expected_s)


def test_before_the_first_run_the_retry_time_is_a_guess_and_nothing_is_late() -> None:
    queue = admission()
    queue.reserve(99)
    assert queue.drain_s() == UNMEASURED_RETRY_S
    assert queue.expected_done_s(1) == 0
    queue.reserve(1, timeout_s=0.001)


@pytest.mark.parametrize(
    ("queued", "count", "instances", "busy_s", "expected_s"),
    [
        (0, 1, 1, 0.0, 0.5),  # the request's own run
        (0, 1, 1, 1.25, 1.75),  # and the current run
        (3, 1, 1, 0.0, 2.0),  # fills the batch
        (4, 1, 1, 0.0, 2.5),
        (8, 4, 1, 0.5, 6.5),
        (8, 4, 2, 0.0, 3.0),
        (0, 4, 2, 0.0, 2.0),  # a batch is not split between instances
        (0, 10, 1, 0.0, 5.0),
    ],
)
def test_a_request_is_done_after_the_current_run_the_batches_ahead_and_its_own(
    queued: int, count: int, instances: int, busy_s: float, expected_s: float
) -> None:
    queue = measured(run_s=2.0, instances=instances)
    queue.reserve(queued)
    assert queue.expected_done_s(count, busy_s=busy_s) == pytest.approx(expected_s)


def test_a_request_that_would_be_late_is_rejected_with_the_time_that_it_lacks() -> None:
    queue = measured(run_s=2.0)
    queue.reserve(8)
    expected_s = 4.5 * MIN_SAFETY_FACTOR
    with pytest.raises(
        TooLateToStart, match=f"would take {expected_s:.1f} s, which is longer than its time limit"
    ) as rejected:
        queue.reserve(1, timeout_s=1.5)
    assert rejected.value.retry_after_s == pytest.approx(expected_s - 1.5)
    with pytest.raises(TooLateToStart):
        queue.check_capacity(1, timeout_s=expected_s - 0.01)
    queue.check_capacity(1, timeout_s=expected_s + 0.01)
    queue.reserve(1, timeout_s=expected_s + 0.01)
    queue.reserve(1, timeout_s=0.0)  # its deadline has passed: the batcher reports that


def test_a_request_that_an_idle_model_cannot_do_in_time_gets_no_retry_after() -> None:
    queue = measured(run_s=2.0)
    for reject in (queue.reserve, queue.check_capacity):
        with pytest.raises(
            DeadlineTooShort, match=r"needs 1\.5 s for the request, which is longer than its time limit"
        ):
            reject(3, timeout_s=1.4)
    assert queue.queued_images == 0


def test_a_batch_takes_as_long_on_one_of_several_idle_instances() -> None:
    """A request whose batches take longer than its timeout even on idle instances used to be rejected with 429,
    although no later attempt could succeed."""
    queue = measured(run_s=2.0, instances=2)
    with pytest.raises(DeadlineTooShort, match=r"needs 2 s for the request"):
        queue.reserve(4, timeout_s=1.5)
    with pytest.raises(DeadlineTooShort, match=r"needs 4 s for the request"):
        queue.reserve(16, timeout_s=3.9)
    queue.reserve(8, timeout_s=2.0 * MIN_SAFETY_FACTOR + 0.01)


def test_interactive_images_do_not_wait_for_background_images() -> None:
    queue = measured(run_s=2.0)
    queue.reserve(8, background=True)
    queue.enqueue_background(8)
    assert (queue.expected_done_s(4), queue.expected_done_s(4, background=True)) == (2.0, 6.0)
    queue.release(2, background=True)
    queue.reserve(4)
    assert (queue.expected_done_s(4), queue.expected_done_s(4, background=True)) == (4.0, 7.0)


def test_the_check_before_decoding_does_not_wait_for_background_images() -> None:
    queue = measured(run_s=2.0)
    queue.reserve(8, background=True)
    queue.enqueue_background(8)
    queue.check_capacity(4, timeout_s=2.0 * MIN_SAFETY_FACTOR + 0.01)


def test_with_several_instances_only_queued_images_delay_a_request() -> None:
    """Two instances need 2 s for eight images, and 4 s if eight other images are queued before them."""
    queue = measured(run_s=2.0, instances=2)
    queue.reserve(8)
    with pytest.raises(TooLateToStart):
        queue.reserve(8, timeout_s=3.0)


@pytest.mark.parametrize(("queued", "bound_s"), [(0, 0.45), (10, 0.95)])
def test_a_request_with_ample_time_needs_no_exact_estimate(queued: int, bound_s: float) -> None:
    """The bound is 50 ms for each of these images: the request's own image, the queued images, and two full batches of
    four that are running or about to run."""
    queue = admission(run_s_by_size={1: 0.05, 4: 0.08})
    queue.reserve(queued)
    assert not queue.is_surely_in_time(1, bound_s - 0.001)
    assert queue.is_surely_in_time(1, bound_s + 0.001)


def test_ample_time_counts_every_instance() -> None:
    """The bound is 50 ms for each of 17 images: the request's own image, and two full batches of four on each of two
    instances."""
    queue = admission(instances=2, run_s_by_size={1: 0.05, 4: 0.08})
    assert not queue.is_surely_in_time(1, 17 * 0.05 - 0.001)
    assert queue.is_surely_in_time(1, 17 * 0.05 + 0.001)


def test_a_request_that_is_surely_in_time_is_in_time_by_the_exact_estimate() -> None:
    queue = admission(instances=2, run_s_by_size={1: 0.05, 4: 0.08})
    for _ in range(60):
        for count in (1, 3, 9):
            bound_s = next(ms / 100 for ms in range(1000) if queue.is_surely_in_time(count, ms / 100))
            assert queue.expected_done_s(count, busy_s=0.08) <= bound_s
        queue.reserve(1)
