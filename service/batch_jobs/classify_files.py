"""The service's classifier without a server: the same decoding, batching and model, in this process."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from service.batch_jobs.decode_worker import Unreadable
from service.classification.classifier import Classifier
from service.classification.top_k import Prediction, top_k
from service.errors import ConvoyError, UnknownVersion
from service.hardware import usable_cores
from service.imaging.decode_pool import Decoders
from service.loaded_models.registry import Registry
from service.model_store.desired_state import DesiredState, ModelSpec, Specific
from service.model_store.mirror import local_models
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings

AT_ONCE = 32  # files in memory, each a request of its own: together they fill a usual batch
TIMEOUT_S = 3600


async def classify_files(
    settings: Settings, model: str, version: str | None, files: Sequence[Path], k: int
) -> list[list[Prediction] | ConvoyError]:
    """The `k` most probable classes of the image in each file, or its error.

    Raises UnknownModel, UnknownVersion, NotReady, ModelFailed.
    """
    roomy = settings.model_copy(update={"max_queue_images": max(settings.max_queue_images, AT_ONCE)})
    metrics = Metrics()
    repository = Repository(await asyncio.to_thread(local_models, settings))
    known = repository.versions(model)
    if known and version is not None and version not in map(str, known):
        raise UnknownVersion(f"Model '{model}' has no version '{version}'.")
    registry = Registry(repository, roomy, metrics)
    with closing(Decoders(usable_cores())) as decoders:
        wish = ModelSpec() if version is None else ModelSpec(versions=Specific(specific=[int(version)]))
        await registry.reconcile(DesiredState(models={model: wish}), only=model)
        classifier = Classifier(
            registry, metrics, decoders, max_pixels=settings.max_pixels, request_timeout_s=TIMEOUT_S
        )
        try:
            return await _each(classifier, model, version, files, k)
        finally:
            await registry.close()


async def _each(
    classifier: Classifier, model: str, version: str | None, files: Sequence[Path], k: int
) -> list[list[Prediction] | ConvoyError]:
    """In the order of the files, each read only when it is its turn."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def classify(file: Path) -> list[Prediction] | ConvoyError:
        async with turns:
            with classifier.context(model, version) as context:
                (row,) = await classifier.predict_many(context, [await asyncio.to_thread(_read, file)])
                return row if isinstance(row, ConvoyError) else top_k(row, context.loaded.labels, k)

    return await asyncio.gather(*map(classify, files))


def _read(file: Path) -> bytes | ConvoyError:
    try:
        return file.read_bytes()
    except OSError as error:
        return Unreadable(f"It cannot be read: {error.strerror or error}.")
