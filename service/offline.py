"""The service's classifier without a server: the same decoding, batching and model, in this process."""

import asyncio
from collections.abc import Sequence
from contextlib import closing

from service.classifier import Classifier, Prediction, best
from service.cores import usable_cores
from service.decoders import Decoders
from service.errors import ConvoyError, UnknownVersion
from service.metrics import Metrics
from service.registry import Registry
from service.repository import Repository
from service.settings import Settings
from service.source import local_models
from service.wanted import Specific, Wanted, Wish


async def classify_files(
    settings: Settings, model: str, version: str | None, pictures: Sequence[bytes], top_k: int
) -> list[list[Prediction] | ConvoyError]:
    """The `top_k` best classes of each encoded picture, or its error. Raises UnknownModel, UnknownVersion, NotReady."""
    roomy = settings.model_copy(update={"max_queue_images": max(settings.max_queue_images, len(pictures))})
    metrics = Metrics()
    repository = Repository(await asyncio.to_thread(local_models, settings))
    known = repository.versions(model)
    if known and version is not None and version not in map(str, known):
        raise UnknownVersion(f"Model '{model}' has no version '{version}'.")
    registry = Registry(repository, roomy, metrics)
    with closing(Decoders(usable_cores())) as decoders:
        wish = Wish() if version is None else Wish(versions=Specific(specific=[int(version)]))
        await registry.reconcile(Wanted(models={model: wish}), only=model)
        classifier = Classifier(registry, metrics, decoders, max_pixels=settings.max_pixels, request_timeout_s=3600)
        try:
            with classifier.journey(model, version) as journey:
                rows = await classifier.predict_many(journey, pictures)
                labels = journey.served.labels
                return [row if isinstance(row, ConvoyError) else best(row, labels, top_k) for row in rows]
        finally:
            await registry.close()
