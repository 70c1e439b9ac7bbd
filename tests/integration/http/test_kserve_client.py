"""KServe's own client can use V1 and V2. `kserve` is not among the requirements, with which it conflicts."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from tests.integration.conftest import SHAPE
from tests.support.images import image_bytes, random_pixels
from tests.support.service_process import RunningService

kserve = pytest.importorskip("kserve", reason="kserve is not installed")
PIXELS = random_pixels(*SHAPE, seed=3)


def ask(service: RunningService, protocol: str, call: Callable[[Any, str], Awaitable[Any]]) -> Any:
    """Returns the result of one call of a new client with the service's URL."""

    async def run() -> Any:
        async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol=protocol)) as client:
            return await call(client, service.url)

    return asyncio.run(run())


def infer_request(*, binary: bool) -> Any:
    tensor = kserve.InferInput("image", [1, *SHAPE], "UINT8")
    tensor.set_data_from_numpy(PIXELS[np.newaxis], binary_data=binary)
    return kserve.InferRequest(model_name="linear", infer_inputs=[tensor])


def v1_probabilities(service: RunningService) -> list[float]:
    data = {"instances": [PIXELS.tolist()]}
    reply = ask(service, "v1", lambda client, url: client.infer(url, data=data, model_name="linear"))
    probabilities: list[float] = reply["predictions"][0]
    return probabilities


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_server_and_model_are_reported_ready(service: RunningService, protocol: str) -> None:
    assert ask(service, protocol, lambda client, url: client.is_server_live(url)) is True
    assert ask(service, protocol, lambda client, url: client.is_model_ready(url, "linear")) is True
    if protocol == "v2":  # the client has no such request for V1
        assert ask(service, protocol, lambda client, url: client.is_server_ready(url)) is True
        assert ask(service, protocol, lambda client, url: client.is_model_ready(url, "nope")) is False


@pytest.mark.parametrize("binary", [False, True])
def test_v2_answers_as_v1(service: RunningService, binary: bool) -> None:
    request = infer_request(binary=binary)
    reply = ask(service, "v2", lambda client, url: client.infer(url, data=request, model_name="linear"))
    assert reply.outputs[0].name == "probabilities"
    np.testing.assert_allclose(reply.outputs[0].as_numpy()[0], v1_probabilities(service), atol=1e-6)


def test_v2_takes_encoded_images(service: RunningService) -> None:
    tensor = kserve.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([image_bytes(seed=3)], np.object_), binary_data=True)
    request = kserve.InferRequest(model_name="linear", infer_inputs=[tensor])
    reply = ask(service, "v2", lambda client, url: client.infer(url, data=request, model_name="linear"))
    assert reply.outputs[0].as_numpy().shape == (1, 4)
