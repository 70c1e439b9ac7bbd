"""The classifier: slots in the queue are always released, and errors keep their position."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from service.classification.classifier import Classifier
from service.errors import (
    BadImage,
    ConvoyError,
    ExpiredInQueue,
    ImageTooLarge,
    ModelFailed,
    QueueFull,
    TooManyImages,
    UnknownModel,
)
from service.imaging import model_input
from service.loaded_models.registry import Registry
from tests.support.images import encode, image_bytes
from tests.support.model_versions import write_version
from tests.support.onnx_graphs import brittle_graph, nan_graph
from tests.unit.service.batching import run_callbacks
from tests.unit.service.classification.classifiers import (
    MAX_DECODED_BYTES,
    MAX_INPUT_BYTES,
    MAX_QUEUE_IMAGES,
    OverlapDetector,
    predict,
    predict_many,
    with_classifier,
)

Predict = Callable[[Classifier, bytes], Awaitable[Any]]
Graph = Callable[[tuple[int, int, int], int], onnx.ModelProto]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_version(tmp_path, "linear")
    return tmp_path


def test_errors_release_their_slots(root: Path) -> None:
    async def test(classifier: Classifier, registry: Registry) -> None:
        for data, error in (
            (b"nothing", BadImage),
            (image_bytes(200, 200), ImageTooLarge),
            (image_bytes(90, 90)[:300], BadImage),
        ):
            with pytest.raises(error):
                await predict(classifier, data)
        with pytest.raises(UnknownModel):
            classifier.context("none", None)
        assert registry.get("linear").batcher.queued_images == 0

    with_classifier(root, test)


def test_images_without_enough_memory_release_their_slots(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(images: object) -> None:
        raise MemoryError

    async def test(classifier: Classifier, registry: Registry) -> None:
        monkeypatch.setattr("service.classification.classifier.np.stack", fail)
        with pytest.raises(MemoryError):
            await predict_many(classifier, [image_bytes(), b"nothing"])
        assert registry.get("linear").batcher.queued_images == 0

    with_classifier(root, test)


def test_a_deadline_before_the_images_are_decoded_is_reported_at_once(root: Path) -> None:
    async def test(classifier: Classifier, registry: Registry) -> None:
        for predicted in (classifier.predict, classifier.predict_many):
            with classifier.context("linear", None) as context:
                context.limit_timeout(0.05)
                with pytest.raises(ExpiredInQueue):
                    await predicted(
                        context, image_bytes(90, 90) if predicted == classifier.predict else [image_bytes()]
                    )
        assert registry.get("linear").batcher.queued_images == 0
        text = classifier._metrics.to_text(classifier._metrics.families()).decode()
        assert 'convoy_refused_total{model="linear",priority="normal",reason="expired_in_queue"} 2.0' in text

    with_classifier(root, test, busy=4)


def test_reserved_slots_are_used_or_released(root: Path) -> None:
    async def test(classifier: Classifier, registry: Registry) -> None:
        batcher = registry.get("linear").batcher
        with classifier.context("linear", None) as context:
            with classifier.reserve_slots(context, 2):
                assert batcher.queued_images == 2
                await asyncio.sleep(0)
            assert len(await classifier.infer_reserved(context, np.zeros((2, 8, 8, 1), np.uint8))) == 2
            with pytest.raises(ZeroDivisionError), classifier.reserve_slots(context, 2):
                raise ZeroDivisionError
        assert batcher.queued_images == 0

    with_classifier(root, test)


def test_results_keep_the_order_of_images_including_errors(root: Path) -> None:
    async def test(classifier: Classifier, registry: Registry) -> None:
        earlier_error = BadImage("It was no base64.")
        results = await predict_many(classifier, [image_bytes(seed=1), b"x", earlier_error, image_bytes(90, 90)])
        assert [type(result) for result in results] == [np.ndarray, BadImage, BadImage, np.ndarray]
        assert results[2] is earlier_error
        assert registry.get("linear").batcher.queued_images == 0

    with_classifier(root, test)


@pytest.mark.parametrize("graph", [nan_graph, brittle_graph])
def test_an_image_on_which_the_model_fails_costs_no_other_image_its_answer(tmp_path: Path, graph: Graph) -> None:
    write_version(tmp_path, "linear", graph=graph((8, 8, 1), 4))
    white = encode(np.full((8, 8, 1), 255, np.uint8))

    async def test(classifier: Classifier, registry: Registry) -> None:
        results = await predict_many(classifier, [image_bytes(seed=1), b"x", white, image_bytes(seed=2), white])
        assert [type(result) for result in results] == [np.ndarray, BadImage, ModelFailed, np.ndarray, ModelFailed]
        np.testing.assert_allclose(results[3], 0.25)  # type: ignore[arg-type]
        with pytest.raises(ModelFailed, match="The model"):
            await predict(classifier, white)
        tensor = np.zeros((3, 8, 8, 1), np.uint8)
        tensor[1:] = 255
        with classifier.context("linear", None) as context, pytest.raises(ModelFailed) as raised:
            await classifier.infer(context, tensor)
        assert raised.value.message.startswith("Image 1: The model")

    with_classifier(tmp_path, test)


def test_the_images_of_a_request_share_one_pixel_limit(root: Path) -> None:
    async def test(classifier: Classifier, registry: Registry) -> None:
        rows = await predict_many(
            classifier, [image_bytes(100, 100), image_bytes(90, 90), image_bytes(70, 70), image_bytes(40, 40)]
        )
        # Several threads decode, so any of the three large images can be the one that exceeds the limit.
        (error,) = [row for row in rows if isinstance(row, ImageTooLarge)]
        assert "more than 20000 pixels together" in error.message
        assert not isinstance(rows[3], ImageTooLarge)
        assert not isinstance((await predict_many(classifier, [image_bytes(70, 70)]))[0], ConvoyError)

    with_classifier(root, test)


@pytest.mark.parametrize("predict_one", [predict, lambda classifier, data: predict_many(classifier, [data])])
@pytest.mark.parametrize(
    ("max_decoded_bytes", "together", "wait_s"),
    [(8 * MAX_DECODED_BYTES, True, 10), (8 * MAX_DECODED_BYTES - 4, False, 0.2), (4, False, 0.2)],
)
def test_images_are_decoded_together_where_their_bytes_fit(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    predict_one: Predict,
    max_decoded_bytes: int,
    together: bool,
    wait_s: float,
) -> None:
    """A quarter of the memory is reserved for small images."""

    async def test(classifier: Classifier, registry: Registry) -> None:
        detector = OverlapDetector(wait_s)
        monkeypatch.setattr(model_input, "read_pixels", detector.read)
        data = image_bytes(100, 100, image_format="JPEG")
        await asyncio.gather(predict_one(classifier, data), predict_one(classifier, data))
        assert detector.overlapped == together

    with_classifier(root, test, max_decoded_bytes=max_decoded_bytes)


def test_single_and_batch_results_agree(root: Path) -> None:
    async def test(classifier: Classifier, registry: Registry) -> None:
        images = [image_bytes(seed=seed) for seed in range(5)]
        single = [await predict(classifier, data) for data in images]
        np.testing.assert_allclose(single, await predict_many(classifier, images), atol=1e-6)
        assert np.ptp(single, axis=0).max() > 0.1

    with_classifier(root, test)


def test_slots_are_reserved_before_decoding(root: Path) -> None:
    async def test(classifier: Classifier, registry: Registry) -> None:
        batcher = registry.get("linear").batcher
        batcher.reserve(MAX_QUEUE_IMAGES)
        with pytest.raises(QueueFull):
            await predict(classifier, b"not even an image")
        batcher.release(MAX_QUEUE_IMAGES)
        with pytest.raises(TooManyImages):
            await predict_many(classifier, [b"x"] * (MAX_QUEUE_IMAGES + 1))
        assert batcher.queued_images == 0

    with_classifier(root, test)


def test_images_that_do_not_fit_into_memory_are_rejected_before_any_decoding(root: Path) -> None:
    """One image of the model takes 64 bytes."""

    async def test(classifier: Classifier, registry: Registry) -> None:
        batcher = registry.get("linear").batcher
        batcher._input_budget.used_bytes += MAX_INPUT_BYTES - 64  # images of other models
        assert (await predict(classifier, image_bytes())).shape == (4,)
        batcher._input_budget.used_bytes += 64
        for attempt in (predict(classifier, b"no image"), predict_many(classifier, [b"no image"])):
            with pytest.raises(QueueFull):
                await attempt
        with pytest.raises(QueueFull):
            classifier.admit("linear", None)
        for _ in range(2):
            with pytest.raises(QueueFull):
                classifier.admit("linear", None, background=True)
        assert batcher.queued_images == 0
        text = classifier._metrics.to_text(classifier._metrics.families()).decode()
        assert 'convoy_refused_total{model="linear",priority="normal",reason="queue_full"} 3.0' in text
        assert 'convoy_refused_total{model="linear",priority="background",reason="queue_full"} 2.0' in text

    with_classifier(root, test)


@pytest.mark.parametrize(("limit_bytes", "kind"), [(3 * 64, np.ndarray), (3 * 64 - 1, list)])
def test_only_small_images_are_joined_on_the_event_loop(
    root: Path, monkeypatch: pytest.MonkeyPatch, limit_bytes: int, kind: type
) -> None:
    """Three images of 64 bytes."""

    async def test(classifier: Classifier, registry: Registry) -> None:
        batcher, queued = registry.get("linear").batcher, []
        infer = batcher.infer
        monkeypatch.setattr(batcher, "infer", lambda images, *rest: (queued.append(images), infer(images, *rest))[1])
        images = [image_bytes(seed=seed) for seed in range(3)]
        rows = await predict_many(classifier, images)
        assert [type(batch) for batch in queued] == [kind]
        np.testing.assert_allclose(rows, [await predict(classifier, data) for data in images], atol=1e-6)

    monkeypatch.setattr("service.classification.classifier.MAX_INLINE_STACK_BYTES", limit_bytes)
    with_classifier(root, test)


def test_a_request_cancelled_while_decoding_releases_its_slots(root: Path) -> None:
    async def test(classifier: Classifier, registry: Registry) -> None:
        unretrieved: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unretrieved.append(context))
        requests = [asyncio.ensure_future(predict(classifier, image_bytes(99, 99))) for _ in range(6)]
        many = asyncio.ensure_future(predict_many(classifier, [image_bytes(99, 99)] * 2))
        await asyncio.sleep(0)
        for task in (*requests, many):
            task.cancel()
        await asyncio.gather(*requests, many, return_exceptions=True)
        assert registry.get("linear").batcher.queued_images == 0
        del requests, many, task
        await run_callbacks()
        gc.collect()
        assert not unretrieved  # asyncio would log each as an error, one per client that disconnects
        assert (await predict(classifier, image_bytes())).shape == (4,)

    with_classifier(root, test)
