"""Explanations over HTTP: the heatmap marks the ink, layers are shown, the cost is limited, and the priority is low."""

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.api.native.explain_schemas import ExplainReply, FeaturesReply, OcclusionReply
from tests.documentation import ROOT
from tests.integration.processes.test_shipped_models import mnist
from tests.support.images import encode, image_bytes
from tests.support.service_process import RunningService

LENET = "/api/v1/models/mnist-lenet5"
SEVEN = (ROOT / "tests/data/seven.png").read_bytes()
INK = 100
NEAR_PX = 2  # half a patch of the smallest kind


@pytest.fixture(scope="module")
def shipped() -> Iterator[RunningService]:
    with RunningService(ROOT / "models") as running:
        yield running


def explain(service: RunningService, content: bytes = SEVEN, accept: str = "*/*", **query: str) -> httpx.Response:
    reply = service.client.post(f"{LENET}/explain", params=query, content=content, headers={"accept": accept})
    assert reply.status_code == 200, reply.text
    return reply


def decode_png(png: str | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png) if isinstance(png, str) else png)))


def is_near_ink(digit: np.ndarray, x: int, y: int) -> bool:
    part = digit[max(0, y - NEAR_PX) : y + NEAR_PX + 1, max(0, x - NEAR_PX) : x + NEAR_PX + 1]
    return bool((part >= INK).any())


def test_the_heat_of_a_seven_peaks_on_its_ink(shipped: RunningService) -> None:
    reply = OcclusionReply.model_validate_json(explain(shipped).content, strict=True, extra="forbid")
    digit = decode_png(reply.input.png)
    np.testing.assert_array_equal(digit, decode_png(SEVEN))
    assert (reply.explained.label, reply.method) == ("7", "occlusion")
    assert digit[reply.peak.y, reply.peak.x] >= INK
    assert reply.peak_log_odds > 1
    heat = decode_png(reply.heat)
    assert heat.shape == (28, 28, 3)
    assert heat[reply.peak.y, reply.peak.x].tolist() == [255, 122, 26]


def test_the_heat_of_real_digits_peaks_on_their_ink(shipped: RunningService, data_dir: Path) -> None:
    images, labels = mnist(data_dir)
    for digit, label in zip(images[:30], labels[:30], strict=True):
        reply = explain(shipped, encode(digit), **{"class": str(label)}).json()
        assert is_near_ink(digit[..., 0], reply["peak"]["x"], reply["peak"]["y"]), (label, reply["peak"])


def test_another_class_may_be_requested(shipped: RunningService) -> None:
    reply = explain(shipped, **{"class": "1"}).json()
    assert reply["explained"]["label"] == "1"
    assert reply["explained"]["probability"] < 0.01
    assert decode_png(reply["heat"]).tolist() != decode_png(explain(shipped).json()["heat"]).tolist()


@pytest.mark.parametrize("class_name", ["10", "00000000010", "9" * 5000, "-1", "1.0", "²", ""])
def test_an_unknown_class_is_reported(shipped: RunningService, class_name: str) -> None:
    reply = shipped.client.post(f"{LENET}/explain", params={"class": class_name}, content=SEVEN)
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_parameter")


def test_the_layers_are_shown_in_order(shipped: RunningService) -> None:
    reply = FeaturesReply.model_validate_json(explain(shipped, method="features").content, strict=True, extra="forbid")
    assert [(grid.layer, grid.count, grid.height) for grid in reply.layers] == [
        *(("c1", 6, 28), ("s2", 6, 14), ("c3", 16, 10), ("s4", 16, 5))
    ]
    assert reply.filters is not None
    assert (reply.filters.layer, reply.filters.count, reply.filters.width) == ("c1", 6, 5)
    assert decode_png(reply.layers[2].png).shape == (2 * 11 - 1, 8 * 11 - 1, 2)
    other = explain(shipped, image_bytes(28, 28), method="features").json()
    assert other["filters"] == reply.filters.model_dump()
    assert other["layers"][0]["png"] != reply.layers[0].png


def test_the_input_is_what_the_network_sees(shipped: RunningService) -> None:
    large = image_bytes(60, 90, 3, image_format="JPEG")
    reply = ExplainReply.model_validate_json(explain(shipped, large, method="input").content, extra="forbid")
    assert (reply.input.height, reply.input.width, reply.input.channels) == (28, 28, 1)
    assert decode_png(reply.input.png).shape == (28, 28)


@pytest.mark.parametrize("method", ["occlusion", "features", "input"])
def test_every_explanation_is_available_as_png(shipped: RunningService, method: str) -> None:
    reply = explain(shipped, accept="image/png", method=method)
    assert reply.headers["content-type"] == "image/png"
    assert 400 <= decode_png(reply.content).shape[1] <= 560


def test_an_explanation_runs_in_the_background_and_is_logged(shipped: RunningService) -> None:
    reply = explain(shipped)
    line = shipped.wait_for_line(request_id=reply.headers["x-request-id"])
    assert line["background"] is True
    assert reply.json()["passes"] == 197


def test_the_queue_limits_the_passes_of_an_explanation(service: RunningService) -> None:
    reply = service.client.post("/api/v1/models/linear/explain", content=image_bytes())
    assert reply.json()["passes"] == 10  # of 64 that may wait


def test_more_than_a_few_at_once_are_rejected(service: RunningService) -> None:
    def explain_slow(seed: int) -> httpx.Response:
        return httpx.post(f"{service.url}/api/v1/models/slow/explain", content=image_bytes(seed=seed), timeout=60)

    with ThreadPoolExecutor(6) as clients:
        replies = list(clients.map(explain_slow, range(6)))
    refused = [reply for reply in replies if reply.status_code == 429]
    assert 0 < len(refused) < 6
    assert {reply.status_code for reply in replies} == {200, 429}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert explain_slow(0).status_code == 200


def test_a_version_lists_its_documents_and_explanations(shipped: RunningService, service: RunningService) -> None:
    described = shipped.client.get(LENET).json()["versions"][0]
    assert described["explanations"] == ["input", "occlusion", "features"]
    assert described["documents"] == ["card.md", "confusion.png", "curves.png"]
    folder = f"{LENET}/versions/{described['version']}"
    assert shipped.client.get(f"{folder}/card.md").text.startswith("# mnist-lenet5, version")
    assert decode_png(shipped.client.get(f"{folder}/confusion.png").content).shape[0] > 100
    plain = service.client.get("/api/v1/models/linear").json()["versions"][0]
    assert (plain["explanations"], plain["documents"]) == (["input", "occlusion"], [])
