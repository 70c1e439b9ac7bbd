"""BentoML: base64 in JSON, adaptive batching."""

import base64

import bentoml
import numpy as np
from classifier import INSTANCES, MAX_BATCH, Net, best


@bentoml.service(
    workers=INSTANCES,
    traffic={"timeout": 60, "max_concurrency": 1024},
    logging={"access": {"enabled": False}},
)
class Classifier:
    def __init__(self) -> None:
        self.net = Net()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=1000)
    def predict(self, images: list[str]) -> list[list[dict]]:
        batch = [self.net.decode(base64.b64decode(image)) for image in images]
        return [best(row) for row in self.net(np.stack(batch))]
