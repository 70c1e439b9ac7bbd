"""Ray Serve: the image as the body, `@serve.batch` without a delay, in a separate cluster on separate ports."""

import signal
import sys
import time

import numpy as np
import ray
from classifier import INSTANCES, MAX_BATCH, PORT, Net, best
from ray import serve
from starlette.requests import Request


@serve.deployment(
    num_replicas=INSTANCES,
    max_ongoing_requests=256,
    ray_actor_options={"num_cpus": 0.5},
    logging_config={"enable_access_log": False},
)
class Classifier:
    def __init__(self):
        self.net = Net()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0)
    async def run(self, images):
        return list(self.net(np.stack(images)))

    async def __call__(self, request: Request):
        return {"predictions": best(await self.run(self.net.decode(await request.body())))}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # a regular exit also stops the cluster
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Classifier.bind())
    while True:
        time.sleep(60)
