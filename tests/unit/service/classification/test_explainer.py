"""The explainer: an explanation that has started completes even if its version is removed."""

import asyncio
import threading
from contextlib import closing
from pathlib import Path

import pytest

from service.classification.classifier import Classifier
from service.classification.explainer import Explainer, Explanation
from service.errors import QueueFull
from service.fair_threads import JOBS_PER_THREAD, Owner
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
                blocked = decode_pool.run(Owner("somebody else"), 1, release.wait)
                context.background = True
                explaining = asyncio.create_task(explainer.occlude(context, image_bytes(90, 90), None))
                await asyncio.sleep(0)  # the explanation waits until its image is decoded
                write_version(tmp_path, "linear", 2)
                await registry.reconcile(DesiredState())
                assert registry.get("linear").version == "2"
                release.set()
                assert (await explaining).passes >= 10
                await blocked
        await registry.close()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_client_has_one_explanation_at_a_time(tmp_path: Path) -> None:
    """A single client could use all permits."""

    async def test() -> None:
        write_version(tmp_path, "linear")
        metrics = Metrics()
        registry = Registry(Repository(tmp_path), Settings(), metrics)
        await registry.reconcile(DesiredState())
        release = threading.Event()
        with closing(DecodePool(1)) as decode_pool:
            classifier = Classifier(registry, metrics, decode_pool, limits=DecodeLimits(PIXELS), request_timeout_s=30)
            with closing(Explainer(classifier, QUEUE_IMAGES)) as explainer:

                async def explain(client: str) -> Explanation:
                    with explainer.context("linear", None) as context:
                        context.client = client
                        with explainer.permit(context):
                            return await explainer.preprocessed(context, image_bytes(90, 90))

                blocked = [decode_pool.run(Owner("somebody else"), 1, release.wait) for _ in range(JOBS_PER_THREAD)]
                first, other = asyncio.create_task(explain("one")), asyncio.create_task(explain("other"))
                await asyncio.sleep(0)
                with pytest.raises(QueueFull, match="for this client"):
                    await explain("one")
                with pytest.raises(QueueFull, match="for other clients"):
                    await explain("a third")
                rejected = {"model": "linear", "reason": "queue_full", "priority": "background"}
                assert metrics.registry.get_sample_value("convoy_refused_total", rejected) == 2
                release.set()
                assert (await first).image.shape == (await other).image.shape == (8, 8, 1)
                assert (await explain("one")).image.shape == (8, 8, 1)
                await asyncio.gather(*blocked)
        await registry.close()

    asyncio.run(asyncio.wait_for(test(), 60))
