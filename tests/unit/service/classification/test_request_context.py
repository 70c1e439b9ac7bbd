"""The context of a request counts its outcome: successes by kind, and deadlines that no response could meet."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest

from service.classification.classifier import Classifier
from service.classification.request_context import RequestContext
from service.errors import (
    BadImage,
    DeadlineExceeded,
    DeadlineTooShort,
    ExpiredInQueue,
    ModelFailed,
    ModelHung,
    QueueFull,
    TooLateToStart,
)
from service.inference.admission import Admission
from service.inference.run_times import RunTimes
from service.loaded_models.registry import Registry
from tests.support.images import image_bytes
from tests.support.model_versions import write_version
from tests.unit.service.classification.classifiers import predict, predict_many, with_classifier

TIMEOUT_S = 10.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_version(tmp_path, "linear")
    return tmp_path


def count(classifier: Classifier, name: str, **labels: str) -> float | None:
    return classifier._metrics.registry.get_sample_value(name, labels)


def test_successes_are_counted_by_model_and_kind(root: Path) -> None:
    async def test(classifier: Classifier, registry: Registry) -> None:
        await predict(classifier, image_bytes())
        await predict_many(classifier, [image_bytes()])
        await predict_many(classifier, [image_bytes(), image_bytes()])
        with classifier.context("linear", None) as context:
            context.background = True
            await classifier.predict(context, image_bytes())
        kinds = {
            kind: count(classifier, "convoy_response_seconds_count", model="linear", kind=kind)
            for kind in ("single", "batch", "background")
        }
        assert kinds == {"single": 2, "batch": 1, "background": 1}

    with_classifier(root, test)


@pytest.mark.parametrize(
    ("client_timeout_s", "error", "expected"),
    [
        (0.005, DeadlineTooShort, 1),
        (0.005, ExpiredInQueue, 1),  # accepted to measure whether the model is as slow as expected
        (0.005, DeadlineExceeded, 1),  # accepted for the same reason, and run
        (0.005, ModelFailed, 0),
        (0.5, ExpiredInQueue, 0),  # the deadline could have been met without the load
        (0.5, DeadlineExceeded, 0),
        (None, DeadlineTooShort, 0),  # the service's own limit is too short: a failure
        (TIMEOUT_S + 1, DeadlineTooShort, 0),
    ],
)
def test_a_deadline_below_the_run_time_counts_if_the_client_chose_it(
    root: Path, client_timeout_s: float | None, error: type[Exception], expected: int
) -> None:
    async def test(classifier: Classifier, registry: Registry) -> None:
        loaded = registry.get("linear")
        slow = RunTimes(32, {1: 0.1})  # seconds, far more than 5 ms and far less than 0.5 s
        loaded.batcher.admission = Admission(slow, max_queue_images=1, batch_size=32, instances=1)

        def reject(context: RequestContext) -> None:
            with context:
                context.limit_timeout(client_timeout_s)
                raise error("too late")

        with pytest.raises(error):
            reject(RequestContext(loaded, classifier._metrics, TIMEOUT_S))
        assert count(classifier, "convoy_short_client_deadlines_total") == expected

    with_classifier(root, test)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ModelFailed("wrong"), "fail"),
        (ModelHung("hangs"), "fail"),
        (DeadlineExceeded("late"), "fail"),
        (ExpiredInQueue("late"), "fail"),
        (RuntimeError("a bug"), "fail"),
        (BadImage("damaged"), "refused"),
        (QueueFull("full", 1.0), "refused"),
        (TooLateToStart("late", 1.0), "refused"),
        (asyncio.CancelledError(), "refused"),
    ],
)
def test_only_failures_of_the_service_count_as_failures_of_a_version(
    root: Path, error: BaseException, outcome: str
) -> None:
    async def test(classifier: Classifier, registry: Registry) -> None:
        loaded = registry.get("linear")
        with suppress(type(error)), RequestContext(loaded, classifier._metrics, TIMEOUT_S):
            raise error
        counts = {name: getattr(loaded.statistics, name).count for name in ("success", "fail", "refused")}
        assert counts == {"success": 0, "fail": 0, "refused": 0} | {outcome: 1}

    with_classifier(root, test)


def test_a_short_client_limit_is_not_counted_as_overload(root: Path) -> None:
    """The model is idle, so that it accepts the request, which then expires."""

    async def test(classifier: Classifier, registry: Registry) -> None:
        batcher = registry.get("linear").batcher
        batcher.admission = Admission(RunTimes(32, {1: 0.1}), max_queue_images=1, batch_size=32, instances=1)

        async def expire(*_: object) -> None:
            raise ExpiredInQueue("too late")

        batcher.infer = expire  # type: ignore[assignment]

        async def infer(client_timeout_s: float | None) -> None:
            with classifier.context("linear", None) as context:
                context.limit_timeout(client_timeout_s)
                await classifier.infer_reserved(context, [])

        for client_timeout_s in (0.005, None):
            with pytest.raises(ExpiredInQueue):
                await infer(client_timeout_s)
        for reason in ("deadline_too_short", "expired_in_queue"):
            labels = {"model": "linear", "reason": reason, "priority": "normal"}
            assert count(classifier, "convoy_refused_total", **labels) == 1, reason

    with_classifier(root, test)


@pytest.mark.parametrize(("client_timeout_s", "is_short"), [(0.5, True), (2.0, False)])
def test_a_limit_shorter_than_decoding_is_not_a_service_failure(
    root: Path, client_timeout_s: float, is_short: bool
) -> None:
    """The run of the model alone would have fitted into the limit."""

    async def test(classifier: Classifier, registry: Registry) -> None:
        batcher = registry.get("linear").batcher
        batcher.admission = Admission(RunTimes(32, {1: 0.001}), max_queue_images=10, batch_size=32, instances=1)
        classifier._decoder._decode_pool.alone_s = Mock(return_value=1.0)  # type: ignore[method-assign]

        async def expire(work: Any) -> None:
            work.cancel()
            raise DeadlineExceeded("late")

        async def decode() -> None:
            with classifier.context("linear", None) as context:
                context.limit_timeout(client_timeout_s)
                await classifier.decode(context, image_bytes(80, 80, image_format="JPEG"))

        late = patch.object(RequestContext, "within_deadline", new=lambda self, work: expire(work))
        with late, pytest.raises(ExpiredInQueue):
            await decode()
        reason = "deadline_too_short" if is_short else "expired_in_queue"
        assert count(classifier, "convoy_refused_total", model="linear", reason=reason, priority="normal") == 1
        assert count(classifier, "convoy_short_client_deadlines_total") == is_short

    with_classifier(root, test)


def test_a_short_limit_that_expires_before_decoding_is_not_counted_as_overload(root: Path) -> None:
    """The decoders are busy with other images, which raised the alert for overload in an hour of healthy traffic."""

    async def test(classifier: Classifier, registry: Registry) -> None:
        batcher = registry.get("linear").batcher
        batcher.admission = Admission(RunTimes(32, {1: 0.1}), max_queue_images=10, batch_size=32, instances=1)
        classifier._decoder._decode_pool.check_in_time = Mock(side_effect=TooLateToStart("too late", 1.0))  # type: ignore[method-assign]

        async def decode(client_timeout_s: float | None) -> None:
            with classifier.context("linear", None) as context:
                context.limit_timeout(client_timeout_s)
                await classifier.decode(context, image_bytes(80, 80, image_format="JPEG"))

        for client_timeout_s in (0.005, None):
            with pytest.raises(TooLateToStart):
                await decode(client_timeout_s)
        for reason in ("deadline_too_short", "too_late_to_start"):
            labels = {"model": "linear", "reason": reason, "priority": "normal"}
            assert count(classifier, "convoy_refused_total", **labels) == 1, reason
        assert count(classifier, "convoy_short_client_deadlines_total") == 0  # the answer is 429, not a failure

    with_classifier(root, test)
