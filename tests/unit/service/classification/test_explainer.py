"""The explainer: an explanation that has begun completes, whatever happens to the version meanwhile."""

import asyncio
import threading
from contextlib import closing
from pathlib import Path

from service.classification.classifier import Classifier
from service.classification.explainer import Explainer
from service.imaging.decode_pool import DecodePool
from service.imaging.limits import DecodeLimits
from service.loaded_models.registry import Registry
from service.model_store.desired_state import DesiredState
from service.model_store.repository import Repository
from service.observability.metrics import Metrics
from service.settings import Settings
from tests.support.images import image_bytes
from tests.support.model_versions import write_version

PIXELS, QUEUE_IMAGES = 10_000, 1024


def test_a_version_that_is_replaced_while_the_image_is_decoded_still_answers(tmp_path: Path) -> None:
    async def test() -> None:
        write_version(tmp_path, "linear")
        metrics = Metrics()
        registry = Registry(Repository(tmp_path), Settings(), metrics)
        await registry.reconcile(DesiredState())
        release = threading.Event()
        with closing(DecodePool(1)) as decode_pool:
            classifier = Classifier(
                registry,
                metrics,
                decode_pool,
                limits=DecodeLimits(PIXELS, max_decoded_bytes=10**6),
                request_timeout_s=30,
            )
            with (
                closing(Explainer(classifier, QUEUE_IMAGES)) as explainer,
                explainer.context("linear", None) as context,
            ):
                blocked = decode_pool.run("somebody else", 1, release.wait)
                explaining = asyncio.create_task(explainer.occlude(context, image_bytes(90, 90), None))
                await asyncio.sleep(0)  # it waits for its image
                write_version(tmp_path, "linear", 2)
                await registry.reconcile(DesiredState())
                assert registry.get("linear").version == "2"
                release.set()
                assert (await explaining).passes >= 10
                await blocked
        await registry.close()

    asyncio.run(asyncio.wait_for(test(), 60))
