"""Classification over HTTP: every way to send images, and the responses."""

import base64
import io
import re
from pathlib import Path
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image

from service.inference.session import Session
from tests.integration.conftest import SHAPE
from tests.support.images import encode, image_bytes, random_pixels
from tests.support.service_process import RunningService

CLASSIFY = "/api/v1/models/linear/classify"
BATCH = CLASSIFY + "/batch"


def expected(zoo: Path, seed: int, version: int = 2) -> list[int]:
    """Returns the class indices of a random image, the most probable first, computed directly with the graph."""
    from service.model_store.manifest import Input

    size = Input(height=SHAPE[0], width=SHAPE[1], channels=1)
    session = Session(zoo / "linear" / str(version) / "model.onnx", size, 4, threads=1)
    return np.argsort(-session.run(random_pixels(*SHAPE, seed=seed)[np.newaxis])[0]).tolist()  # type: ignore[no-any-return]


def indices(entry: dict[str, list[dict[str, int]]]) -> list[int]:
    return [prediction["index"] for prediction in entry["predictions"]]


def test_an_image_as_the_raw_body(service: RunningService, zoo: Path) -> None:
    reply = service.client.post(CLASSIFY, content=image_bytes(seed=5))
    assert reply.status_code == 200
    body = reply.json()
    assert (body["model"], body["version"]) == ("linear", "2")
    assert indices(body) == expected(zoo, 5)
    assert [p["label"] for p in body["predictions"]] == [f"class-{i}" for i in indices(body)]
    assert sum(p["probability"] for p in body["predictions"]) == pytest.approx(1)


def test_the_content_type_of_a_raw_body_is_ignored(service: RunningService, zoo: Path) -> None:
    for content_type in ("application/x-www-form-urlencoded", "image/jpeg", "text/plain"):
        reply = service.client.post(CLASSIFY, content=image_bytes(seed=5), headers={"content-type": content_type})
        assert indices(reply.json()) == expected(zoo, 5)


def test_an_image_in_a_form(service: RunningService, zoo: Path) -> None:
    reply = service.client.post(CLASSIFY, files={"file": ("a.png", image_bytes(seed=6))})
    assert indices(reply.json()) == expected(zoo, 6)


def test_top_k_and_version(service: RunningService, zoo: Path) -> None:
    reply = service.client.post(CLASSIFY, params={"top_k": 2, "version": "1"}, content=image_bytes(seed=7))
    assert reply.json()["version"] == "1"
    assert indices(reply.json()) == expected(zoo, 7, version=1)[:2]
    assert len(service.client.post(CLASSIFY, params={"top_k": 999}, content=image_bytes()).json()["predictions"]) == 4


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_every_format(service: RunningService, image_format: str) -> None:
    reply = service.client.post(CLASSIFY, content=image_bytes(30, 20, 3, image_format=image_format))
    assert reply.status_code == 200, reply.text


def test_exif_orientation_is_applied(service: RunningService) -> None:
    pixels = random_pixels(8, 8, seed=9)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    rotated = encode(pixels[::-1, ::-1], "PNG", exif=exif)
    answers = [service.client.post(CLASSIFY, content=data).json() for data in (encode(pixels), rotated)]
    assert answers[0] == answers[1]


def test_many_images_in_a_form_keep_their_order(service: RunningService, zoo: Path) -> None:
    files = [("files", (f"{seed}.png", image_bytes(seed=seed))) for seed in range(20)]
    body = service.client.post(BATCH, files=files).json()
    assert [entry["id"] for entry in body["results"]] == [f"{seed}.png" for seed in range(20)]
    assert [indices(entry) for entry in body["results"]] == [expected(zoo, seed) for seed in range(20)]


def test_a_broken_image_fails_only_its_own_entry(service: RunningService, zoo: Path) -> None:
    data = [
        base64.b64encode(image_bytes(seed=1)).decode(),
        "bm8gcGljdHVyZQ==",
        "!",
        base64.b64encode(image_bytes(seed=2)).decode(),
    ]
    images = [{"id": f"n{i}", "data": text} for i, text in enumerate(data)]
    reply = service.client.post(BATCH, json={"images": images}, params={"top_k": 4})
    results = reply.json()["results"]
    assert [entry["id"] for entry in results] == ["n0", "n1", "n2", "n3"]
    assert [entry.get("error", {}).get("code") for entry in results] == [None, "bad_image", "bad_image", None]
    assert [indices(results[i]) for i in (0, 3)] == [expected(zoo, 1), expected(zoo, 2)]


def test_a_batch_of_broken_images_only(service: RunningService) -> None:
    reply = service.client.post(BATCH, json={"images": [{"data": "AAAA"}]})
    assert reply.status_code == 200
    assert reply.json()["results"][0]["error"]["code"] == "bad_image"
    assert "id" not in reply.json()["results"][0]


def test_a_batch_larger_than_the_models_batch_is_split_and_rejoined(service: RunningService, zoo: Path) -> None:
    files = [("files", (str(seed), image_bytes(seed=seed))) for seed in range(50)]  # max_batch_size is 16
    body = service.client.post(BATCH, files=files).json()
    assert [indices(entry) for entry in body["results"]] == [expected(zoo, seed) for seed in range(50)]


def test_a_large_image_is_scaled_as_the_manifest_states(service: RunningService) -> None:
    large = random_pixels(300, 200, 1, seed=3)
    small = np.asarray(Image.fromarray(large[..., 0]).resize((8, 8), Image.Resampling.BILINEAR))[..., np.newaxis]
    answers = [service.client.post(CLASSIFY, content=encode(pixels)).json() for pixels in (large, small)]
    assert answers[0] == answers[1]


def test_transparency_is_composited_over_the_background_of_the_manifest(service: RunningService) -> None:
    file = io.BytesIO()
    Image.new("LA", (8, 8), (255, 0)).save(file, "PNG")
    transparent, black = file.getvalue(), encode(np.zeros((8, 8, 1), np.uint8))
    answers = [service.client.post(CLASSIFY, content=data).json() for data in (transparent, black)]
    assert answers[0] == answers[1]


def test_a_request_id_is_made_or_kept_and_logged_with_what_the_request_cost(service: RunningService) -> None:
    generated_id = service.client.post(CLASSIFY, content=image_bytes()).headers["x-request-id"]
    sent_id = service.client.post(CLASSIFY, content=image_bytes(), headers={"x-request-id": "abc-1"}).headers[
        "x-request-id"
    ]
    assert len(generated_id) == 32
    assert sent_id == "abc-1"
    line = service.wait_for_line(request_id="abc-1")
    assert {"model": "linear", "version": "2", "batch_size": 1, "status": 200}.items() <= line.items()
    assert all(line[name] >= 0 for name in ("decode_ms", "queue_ms", "compute_ms", "ms"))


@pytest.mark.parametrize(("priority", "background"), [("u=7", True), ("i, u=7", True), ("u=4", None), ("i", None)])
def test_a_low_priority_request_runs_in_the_background(
    service: RunningService, priority: str, background: bool | None
) -> None:
    request_id = f"priority-{priority}"
    service.client.post(CLASSIFY, content=image_bytes(), headers={"priority": priority, "x-request-id": request_id})
    assert service.wait_for_line(request_id=request_id).get("background") is background


def test_a_forged_request_id_is_replaced(service: RunningService) -> None:
    reply = service.client.get("/health/live", headers={"x-request-id": "x" * 200})
    assert len(reply.headers["x-request-id"]) == 32


def test_server_timing_contains_the_stages(service: RunningService) -> None:
    timing = service.client.post(CLASSIFY, content=image_bytes()).headers["server-timing"]
    assert [part.split(";")[0].strip() for part in timing.split(",")] == ["decode", "queue", "compute", "batch"]


def test_every_answer_names_the_content_it_comes_from(service: RunningService) -> None:
    model = service.client.get("/api/v1/models/linear").json()
    digests = {version["version"]: version["digest"] for version in model["versions"]}
    assert len(set(digests.values())) == 2
    for version, digest in digests.items():
        for url in (f"{CLASSIFY}?version={version}", f"/api/v1/models/linear/explain?version={version}"):
            reply = service.client.post(url, content=image_bytes())
            assert (reply.json()["version"], reply.headers["model-digest"]) == (version, digest)
        rows = {"instances": [[[[0]] * 8] * 8]}
        reply = service.client.post(f"/v1/models/linear/versions/{version}:predict", json=rows)
        assert reply.headers["model-digest"] == digest


def test_the_models_are_listed_and_described(service: RunningService) -> None:
    listed = {model["name"]: model for model in service.client.get("/api/v1/models").json()["models"]}
    assert sorted(listed) == ["brittle", "linear", "slow"]
    assert listed["linear"]["versions"] == ["2", "1"]
    described = service.client.get("/api/v1/models/linear").json()
    assert described["default_version"] == "2"
    assert described["labels"] == ["class-0", "class-1", "class-2", "class-3"]
    newest = described["versions"][0]
    assert newest["input"] == {"height": 8, "width": 8, "channels": 1}
    assert newest["provenance"]["source"] == "made by the tests"
    assert (newest["provider"], newest["precision"]) == ("CPUExecutionProvider", "float32")


def test_docs_and_their_scripts_come_from_the_service_itself(service: RunningService) -> None:
    page = service.client.get("/docs").text
    parts = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(parts) == 4
    for part in parts:
        assert service.client.get(urljoin("/docs", part)).status_code == 200
    assert "<script>" not in page, "its Content-Security-Policy forbids that"
    assert service.client.get(urljoin("/docs", "openapi.json")).status_code == 200
    paths = service.client.get("/openapi.json").json()["paths"]
    assert {"/api/v1/models/{model}/classify", "/api/v1/models/{model}/classify/batch"} <= paths.keys()


def test_health(service: RunningService) -> None:
    assert service.client.get("/health/live").json() == {"status": "live"}
    assert service.client.get("/health/ready").json() == {"status": "ready"}
