"""Explanations of one answer: which pixels mattered, and what the layers see. Knows no HTTP.

They are guests: forward passes ride in the background of the model's own queue, take at most a quarter of it and two
seconds of the model, and only so many explanations are made at a time.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.classification import occlusion
from service.classification.classifier import Classifier
from service.classification.request_context import RequestContext
from service.classification.top_k import Prediction
from service.errors import BadParameter
from service.inference.feature_maps import LayerOutputs
from service.loaded_models.loaded_version import LoadedVersion

MAX_CONCURRENT = 2
QUEUE_SHARE = 4
MODEL_MS = 2000.0
MIN_PASSES = 10  # the image, and three by three patches: less would explain nothing
NICENESS = 10
MAX_INDEX_DIGITS = 9  # of a class's index: Python refuses to read a number of thousands

Pixels = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class Explanation:
    """What one image makes of a network: the image as it was seen, uint8 (height, width, channels)."""

    image: Pixels


@dataclass(frozen=True)
class OcclusionHeatmap(Explanation):
    """Which pixels spoke for `prediction`: `values`, float32 (height, width), are log-odds; it took `passes` images."""

    prediction: Prediction
    values: NDArray[np.float32]
    passes: int


@dataclass(frozen=True)
class FeatureMaps(Explanation):
    """What the layers made of it."""

    insides: LayerOutputs


class Explainer:
    """Explains through a classifier's queues."""

    def __init__(self, classifier: Classifier, max_queue_images: int) -> None:
        self._classifier = classifier
        self._most_images = max_queue_images // QUEUE_SHARE
        self._at_work = 0
        self._executor = ThreadPoolExecutor(1, "explain", initializer=_yield_to_others)
        self.is_busy = False
        """Whether its thread is at work, past `close` too."""

    def context(self, model: str, version: str | None) -> RequestContext:
        """Begins a request, as for the classifier."""
        return self._classifier.context(model, version)

    async def preprocessed(self, context: RequestContext, encoded: bytes) -> Explanation:
        """The image as the network sees it. Raises what decoding raises, and Overloaded."""
        with self._as_guest(context):
            return Explanation(await self._classifier.decode(context, encoded))

    async def occlude(self, context: RequestContext, encoded: bytes, wanted: str | None) -> OcclusionHeatmap:
        """Which pixels spoke for the class `wanted` (label, or index), or for the most probable one.

        Raises what classifying raises, BadParameter for a class that is not there, and Overloaded.
        """
        loaded = context.loaded
        index = None if wanted is None else _index_of(wanted, loaded.labels)
        with self._as_guest(context):
            height, width, _ = loaded.manifest.input.shape
            where = occlusion.patches(height, width, self._affordable(loaded) - 1)
            with self._classifier.reserve_slots(context, len(where) + 1):
                image = await self._classifier.decode(context, encoded)
                batch = occlusion.occluded(image, where)
            rows = await self._classifier.answer(context, batch)
            chosen = int(rows[0].argmax()) if index is None else index
            heat = await self._aside(context, occlusion.importance, rows, chosen, where, height, width)
        prediction = Prediction(chosen, loaded.labels[chosen], float(rows[0, chosen]))
        return OcclusionHeatmap(image, prediction, heat, len(rows))

    async def feature_maps(self, context: RequestContext, encoded: bytes) -> FeatureMaps:
        """Filters and feature maps. Raises what decoding raises, BadParameter where there are none, and Overloaded."""
        with self._as_guest(context):
            image = await self._classifier.decode(context, encoded)
            return FeatureMaps(image, await self._aside(context, context.loaded.feature_graph.layer_outputs, image))

    def close(self) -> None:
        """Takes nothing new; does not wait for what is being explained."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _as_guest(self, context: RequestContext) -> Iterator[None]:
        """A permit, taken without waiting; all that is done with it makes way for others."""
        if self._at_work >= MAX_CONCURRENT:
            message = "Other explanations are being made already."
            raise self._classifier.refusal(context.loaded, message, MODEL_MS / 1000)
        self._at_work += 1
        context.background = True
        try:
            yield
        finally:
            self._at_work -= 1

    def _affordable(self, loaded: LoadedVersion) -> int:
        """Images of one explanation."""
        image_ms = min(ms / size for size, ms in loaded.batch_ms.items())
        return max(MIN_PASSES, min(self._most_images, int(MODEL_MS / max(image_ms, 0.001))))

    async def _aside(self, context: RequestContext, work: Callable[..., T], *given: Any) -> T:
        """Does it on a thread that yields to all others."""
        job = asyncio.get_running_loop().run_in_executor(self._executor, self._noted, work, *given)
        return await context.within_deadline(job)

    def _noted(self, work: Callable[..., T], *given: Any) -> T:
        self.is_busy = True
        try:
            return work(*given)
        finally:
            self.is_busy = False


def _index_of(wanted: str, labels: Sequence[str]) -> int:
    if wanted in labels:
        return labels.index(wanted)
    if wanted.isascii() and wanted.isdigit() and len(wanted) <= MAX_INDEX_DIGITS and int(wanted) < len(labels):
        return int(wanted)
    raise BadParameter(f"The model has no class '{wanted}'.", "Give a label of the model, or a class's index from 0.")


def _yield_to_others() -> None:
    if sys.platform == "linux":  # elsewhere it would be the whole process
        os.nice(NICENESS)
