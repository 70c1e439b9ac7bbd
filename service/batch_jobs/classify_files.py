"""Classifies a few files in this process, with the decoding, batching and models of the service.

`convoy classify` uses this module. For large inputs, use the module `job`, which decodes in several processes.
"""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from service.batch_jobs.decode_worker import UnreadableFile, read_within_limit
from service.classification.classifier import Classifier
from service.classification.top_k import Prediction, select_predictions
from service.errors import ConvoyError, ImageTooLarge, UnknownVersion
from service.hardware import usable_cores
from service.imaging.decode_pool import DecodePool
from service.imaging.pixel_budget import decode_limits
from service.loaded_models.registry import Registry
from service.model_store.desired_state import ModelSpec, Specific
from service.model_store.mirror import local_models
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings

MAX_CONCURRENT_FILES = 32  # Each file is a separate request; this many fill a batch of the default size.
TIMEOUT_S = 3600


async def classify_files(
    settings: Settings, model: str, version: str | None, files: Sequence[Path], k: int | None
) -> list[list[Prediction] | ConvoyError]:
    """Returns the `k` most probable classes of the image in each file, or its error.

    `k=None` has the same meaning as in `select_predictions`. Raises UnknownModel, UnknownVersion, NotReady or
    ModelFailed.
    """
    max_queue_images = max(settings.max_queue_images, MAX_CONCURRENT_FILES)
    offline_settings = settings.model_copy(update={"max_queue_images": max_queue_images})
    metrics = Metrics()
    repository = Repository(await asyncio.to_thread(local_models, settings, model, version))
    versions = repository.versions(model)
    if versions and version is not None and version not in map(str, versions):
        raise UnknownVersion(f"Model '{model}' has no version '{version}'.")
    registry = Registry(repository, offline_settings, metrics)
    with closing(DecodePool(usable_cores())) as decode_pool:
        spec = ModelSpec() if version is None else ModelSpec(versions=Specific(specific=[int(version)]))
        await registry.load_only(model, spec)
        classifier = Classifier(
            registry,
            metrics,
            decode_pool,
            limits=decode_limits(settings, processes=1),
            request_timeout_s=TIMEOUT_S,
        )
        try:
            return await _classify_each(classifier, model, version, files, k)
        finally:
            await registry.close()


async def _classify_each(
    classifier: Classifier, model: str, version: str | None, files: Sequence[Path], k: int | None
) -> list[list[Prediction] | ConvoyError]:
    """Returns the results in the order of the files. Reads at most MAX_CONCURRENT_FILES at a time."""
    semaphore = asyncio.Semaphore(MAX_CONCURRENT_FILES)

    async def classify(file: Path) -> list[Prediction] | ConvoyError:
        async with semaphore:
            with classifier.context(model, version) as context:
                (row,) = await classifier.predict_many(context, [await asyncio.to_thread(_read_file, file)])
                if isinstance(row, ConvoyError):
                    return row
                loaded = context.loaded
                return select_predictions(row, loaded.labels, k, loaded.manifest.activation)

    return await asyncio.gather(*map(classify, files))


def _read_file(file: Path) -> bytes | ConvoyError:
    try:
        with file.open("rb") as opened:
            return read_within_limit(opened)  # a device such as /dev/zero never ends
    except OSError as error:
        return UnreadableFile(f"The file cannot be read: {error.strerror or error}.")
    except ImageTooLarge as error:
        return error
