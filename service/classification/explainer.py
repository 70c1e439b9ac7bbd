"""Explains one prediction by occlusion or by feature maps. Independent of HTTP.

Predictions take precedence: the forward passes of an explanation are background work in the model's own queue. They use
at most a quarter of the queue and of the memory for images, and about two seconds of the model's run time. Only a few
explanations run at the same time, at most one per client: a caller holds a permit until the explanation is encoded.
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

MAX_CONCURRENT_EXPLANATIONS = 2
QUEUE_DIVISOR = 4
MAX_COMPUTE_MS = 2000.0
MIN_PASSES = 10  # the image and 3 x 3 patches; fewer patches show nothing
NICENESS = 10
MAX_INDEX_DIGITS = 9  # of a class index; Python raises an error for numbers with thousands of digits

Pixels = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class Explanation:
    """The image as the network sees it, uint8 (height, width, channels)."""

    image: Pixels


@dataclass(frozen=True)
class OcclusionHeatmap(Explanation):
    """The evidence of each pixel for `prediction`: log-odds, float32 (height, width), from `passes` forward passes."""

    prediction: Prediction
    values: NDArray[np.float32]
    passes: int


@dataclass(frozen=True)
class FeatureMaps(Explanation):
    """The outputs of the layers for the image."""

    layer_outputs: LayerOutputs


class Explainer:
    """Explains predictions through a classifier's queues."""

    def __init__(self, classifier: Classifier, max_queue_images: int) -> None:
        self._classifier = classifier
        self._max_images = max_queue_images // QUEUE_DIVISOR
        self._active_clients: set[str] = set()
        self._executor = ThreadPoolExecutor(1, "explain", initializer=_lower_thread_priority)
        self.is_busy = False
        """Whether the thread is running an explanation. Also valid after `close`."""

    def context(self, model: str, version: str | None) -> RequestContext:
        """Returns the context of a new request. Raises the same errors as `Classifier.context`."""
        return self._classifier.context(model, version)

    async def preprocessed(self, context: RequestContext, encoded: bytes) -> Explanation:
        """Returns the image as the network sees it. Raises the errors of decoding."""
        return Explanation(await self._classifier.decode(context, encoded))

    async def occlude(self, context: RequestContext, encoded: bytes, class_name: str | None) -> OcclusionHeatmap:
        """Explains the class `class_name` (a label or an index), or by default the most probable class.

        Raises the errors of classification, or BadParameter for an unknown class.
        """
        loaded = context.loaded
        requested = None if class_name is None else _class_index(class_name, loaded.labels)
        height, width, _ = loaded.manifest.input.shape
        patches = occlusion.patch_grid(height, width, self._max_passes(loaded) - 1)
        with self._classifier.reserve_slots(context, len(patches) + 1):
            image = await self._classifier.decode(context, encoded)
            batch = await self.run_on_thread(context, occlusion.occlude_patches, image, patches)
        rows = await self._classifier.infer_reserved(context, batch)
        index = int(rows[0].argmax()) if requested is None else requested
        activation = loaded.manifest.activation
        heatmap = await self.run_on_thread(
            context, occlusion.importance, rows, index, patches, height, width, activation
        )
        prediction = Prediction(index, loaded.labels[index], float(rows[0, index]))
        return OcclusionHeatmap(image, prediction, heatmap, len(rows))

    async def feature_maps(self, context: RequestContext, encoded: bytes) -> FeatureMaps:
        """Returns filters and feature maps.

        Raises the errors of decoding, or BadParameter for a version without feature maps.
        """
        image = await self._classifier.decode(context, encoded)
        compute = context.loaded.feature_graph.layer_outputs
        return FeatureMaps(image, await self.run_on_thread(context, compute, image))

    def close(self) -> None:
        """Rejects further work. Does not wait for a running explanation."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def permit(self, context: RequestContext) -> Iterator[None]:
        """Marks the request as background work. Raises Overloaded if too many explanations run already."""
        client, context.background = context.client, True
        if client in self._active_clients or len(self._active_clients) >= MAX_CONCURRENT_EXPLANATIONS:
            whose = "this client" if client in self._active_clients else "other clients"
            message = f"An explanation for {whose} is running already."
            raise self._classifier.queue_full_error(context, message, MAX_COMPUTE_MS / 1000)
        self._active_clients.add(client)
        try:
            yield
        finally:
            self._active_clients.discard(client)

    def _max_passes(self, loaded: LoadedVersion) -> int:
        """Returns the maximum number of forward passes of one explanation."""
        image_ms = min(ms / size for size, ms in loaded.batch_ms.items())
        max_images = min(self._max_images, loaded.batcher.max_request_images // QUEUE_DIVISOR)
        return max(MIN_PASSES, min(max_images, int(MAX_COMPUTE_MS / max(image_ms, 0.001))))

    async def run_on_thread(self, context: RequestContext, work: Callable[..., T], *args: Any) -> T:
        """Runs a function on a thread of low priority. Raises DeadlineExceeded."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, self._run_busy, work, *args)
        return await context.within_deadline(future)

    def _run_busy(self, work: Callable[..., T], *args: Any) -> T:
        self.is_busy = True
        try:
            return work(*args)
        finally:
            self.is_busy = False


def _class_index(name: str, labels: Sequence[str]) -> int:
    if name in labels:
        return labels.index(name)
    if name.isascii() and name.isdigit() and len(name) <= MAX_INDEX_DIGITS and int(name) < len(labels):
        return int(name)
    raise BadParameter(
        f"The model has no class '{name}'.", "Send a label of the model, or a class index, which starts at 0."
    )


def _lower_thread_priority() -> None:
    if sys.platform == "linux":  # on other systems the niceness applies to the whole process
        os.nice(NICENESS)
