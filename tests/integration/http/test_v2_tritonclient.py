"""The unmodified tritonclient against a real service: all requests that it can send to a REST server."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.integration.conftest import SHAPE
from tests.support.images import encode, image_bytes, random_pixels
from tests.support.model_versions import write_version
from tests.support.service_process import RunningService

MODEL = "linear"


@pytest.fixture(scope="module")
def writable_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningService, Path]]:
    """Runs a separate service whose repository clients may change. Yields the service and its models folder."""
    root = tmp_path_factory.mktemp("changeable")
    write_version(root, MODEL, 1, seed=1)
    write_version(root, "other", 1)
    with RunningService(root, repository_changes="true") as running:
        yield running, root


@pytest.fixture
def client(service: RunningService) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(service.url.removeprefix("http://"), concurrency=4) as connected:
        yield connected


def batch(n: int = 3) -> np.ndarray:
    return np.stack([random_pixels(*SHAPE, seed=seed) for seed in range(n)])


def tensor(values: np.ndarray, binary: bool = True) -> list[triton.InferInput]:
    input_tensor = triton.InferInput("image", list(values.shape), "UINT8")
    input_tensor.set_data_from_numpy(values, binary_data=binary)
    return [input_tensor]


def requested_outputs(binary: bool = True, class_count: int = 0) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=class_count)]


def classify_probabilities(service: RunningService, values: np.ndarray) -> np.ndarray:
    """Returns the probabilities of each image from Convoy's own endpoint."""
    rows = []
    for pixels in values:
        reply = service.client.post(f"/api/v1/models/{MODEL}/classify", content=encode(pixels)).json()
        rows.append([p["probability"] for p in sorted(reply["predictions"], key=lambda p: p["index"])])
    return np.array(rows, np.float32)


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["name"] == "convoy"
    metadata = client.get_model_metadata(MODEL)
    assert metadata["versions"] == ["1", "2"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    assert metadata["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 4]}]
    config = client.get_model_config(MODEL)
    assert (config["max_batch_size"], config["input"][0]["data_type"]) == (16, "TYPE_UINT8")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_infer_in_both_forms_each_way(
    service: RunningService, client: triton.InferenceServerClient, binary_in: bool, binary_out: bool
) -> None:
    values = batch()
    result = client.infer(MODEL, tensor(values, binary_in), outputs=requested_outputs(binary_out), request_id="r-1")
    np.testing.assert_allclose(result.as_numpy("probabilities"), classify_probabilities(service, values), atol=1e-6)
    head = result.get_response()
    assert (head["model_name"], head["model_version"], head["id"]) == (MODEL, "2", "r-1")


def test_infer_without_requested_outputs_and_with_a_version(client: triton.InferenceServerClient) -> None:
    result = client.infer(MODEL, tensor(batch(1)), model_version="1")
    assert result.as_numpy("probabilities").shape == (1, 4)
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("binary", [True, False])
def test_class_count_names_the_best(
    service: RunningService, client: triton.InferenceServerClient, binary: bool
) -> None:
    values = batch(2)
    result = client.infer(MODEL, tensor(values), outputs=requested_outputs(binary, class_count=2))
    class_texts = result.as_numpy("probabilities")
    assert class_texts.shape == (2, 2)
    texts = [text.decode() if isinstance(text, bytes) else text for text in class_texts[:, 0]]
    for text, row in zip(texts, classify_probabilities(service, values), strict=True):
        probability, index, label = text.split(":")
        assert (int(index), label) == (row.argmax(), f"class-{row.argmax()}")
        assert float(probability) == pytest.approx(row.max(), abs=1e-5)


def test_encoded_images_as_bytes(service: RunningService, client: triton.InferenceServerClient) -> None:
    values = batch(2)
    input_tensor = triton.InferInput("image", [2], "BYTES")
    input_tensor.set_data_from_numpy(np.array([encode(pixels) for pixels in values], object))
    rows = client.infer(MODEL, [input_tensor]).as_numpy("probabilities")
    np.testing.assert_allclose(rows, classify_probabilities(service, values), atol=1e-6)


def test_a_broken_image_as_bytes_is_reported(client: triton.InferenceServerClient) -> None:
    input_tensor = triton.InferInput("image", [2], "BYTES")
    input_tensor.set_data_from_numpy(np.array([image_bytes(), b"none"], object))
    with pytest.raises(InferenceServerException, match="not an image"):
        client.infer(MODEL, [input_tensor])


def test_async_infer(service: RunningService, client: triton.InferenceServerClient) -> None:
    values = batch(8)
    pending = [client.async_infer(MODEL, tensor(pixels[np.newaxis])) for pixels in values]
    rows = np.concatenate([request.get_result().as_numpy("probabilities") for request in pending])
    np.testing.assert_allclose(rows, classify_probabilities(service, values), atol=1e-6)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_both_ways(service: RunningService, client: triton.InferenceServerClient, algorithm: str) -> None:
    values = batch(60)
    result = client.infer(
        MODEL,
        tensor(values, binary=False),
        outputs=requested_outputs(binary=False),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_allclose(result.as_numpy("probabilities"), classify_probabilities(service, values), atol=1e-6)


def test_statistics_count_inferences(client: triton.InferenceServerClient) -> None:
    def version_1_counts() -> dict[str, int]:
        (stats,) = client.get_inference_statistics(MODEL, "1")["model_stats"]
        assert (
            sum(b["batch_size"] * b["compute_infer"]["count"] for b in stats["batch_stats"]) == stats["inference_count"]
        )
        return {
            "images": stats["inference_count"],
            **{k: v["count"] for k, v in stats["inference_stats"].items()},
        }

    before = version_1_counts()
    client.infer(MODEL, tensor(batch(5)), model_version="1")
    with pytest.raises(InferenceServerException):
        client.infer(MODEL, tensor(batch(5)[:, :4]), model_version="1")
    after = version_1_counts()
    assert after["images"] - before["images"] == 5
    assert after["success"] - before["success"] == 1
    assert after["queue"] - before["queue"] == 1
    assert after["fail"] - before["fail"] == 1


def test_statistics_of_every_model(client: triton.InferenceServerClient) -> None:
    names = {entry["name"] for entry in client.get_inference_statistics()["model_stats"]}
    assert names == {"linear", "brittle", "slow"}


BAD_REQUESTS: dict[str, tuple[str, str, list[triton.InferInput], str]] = {
    "shape": (MODEL, "", tensor(batch(1)[:, :7]), r"has shape \[1, 7, 8, 1\]; it must be \[-1, 8, 8, 1\]"),
    "rank": (MODEL, "", tensor(batch(1)[0]), "it must be"),
    "model": ("nope", "", tensor(batch(1)), "no model 'nope'"),
    "version": (MODEL, "7", tensor(batch(1)), "no loaded version or label '7'"),
    "size": (MODEL, "", tensor(np.repeat(batch(1), 65, 0)), "65 images, and the queue holds at most 64"),
}


@pytest.mark.parametrize(("model", "version", "inputs", "pattern"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_errors_are_reported(
    client: triton.InferenceServerClient, model: str, version: str, inputs: list[triton.InferInput], pattern: str
) -> None:
    with pytest.raises(InferenceServerException, match=pattern):
        client.infer(model, inputs, model_version=version)


@pytest.mark.parametrize("binary", [True, False])
def test_a_wrong_datatype_is_reported(client: triton.InferenceServerClient, binary: bool) -> None:
    input_tensor = triton.InferInput("image", [1, *SHAPE], "FP32")
    input_tensor.set_data_from_numpy(np.zeros((1, *SHAPE), np.float32), binary_data=binary)
    with pytest.raises(InferenceServerException, match="datatype FP32; it must be UINT8 or BYTES"):
        client.infer(MODEL, [input_tensor])


def test_a_wrong_name_is_reported(client: triton.InferenceServerClient) -> None:
    input_tensor = triton.InferInput("pixels", [1, *SHAPE], "UINT8")
    input_tensor.set_data_from_numpy(batch(1))
    with pytest.raises(InferenceServerException, match="no input 'pixels'; the model takes 'image'"):
        client.infer(MODEL, [input_tensor])
    with pytest.raises(InferenceServerException, match="exactly one output, 'probabilities'"):
        client.infer(MODEL, tensor(batch(1)), outputs=[triton.InferRequestedOutput("logits")])


def test_shared_memory_is_rejected_not_ignored(client: triton.InferenceServerClient) -> None:
    input_tensor = triton.InferInput("image", [1, *SHAPE], "UINT8")
    input_tensor.set_shared_memory("region", 64)
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.infer(MODEL, [input_tensor])
    answer = triton.InferRequestedOutput("probabilities")
    answer.set_shared_memory("region", 16)
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.infer(MODEL, tensor(batch(1)), outputs=[answer])


def test_a_client_timeout_is_a_deadline(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="time limit"):
        client.infer("slow", tensor(batch(1)), timeout=1000)


def test_the_repository_is_not_changed_unless_allowed(client: triton.InferenceServerClient) -> None:
    assert {entry["name"] for entry in client.get_model_repository_index()} == {"linear", "brittle", "slow"}
    for change_model in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="does not allow clients to load or unload"):
            change_model(MODEL)
    assert client.is_model_ready(MODEL)


def test_load_and_unload(writable_service: tuple[RunningService, Path]) -> None:
    service, root = writable_service
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        client.unload_model("other")
        assert not client.is_model_ready("other")
        assert client.is_server_ready()
        states = {(e["name"], e["version"]): e["state"] for e in client.get_model_repository_index()}
        assert states == {(MODEL, "1"): "READY", ("other", "1"): "UNAVAILABLE"}
        client.load_model("other")
        assert client.is_model_ready("other")

        with pytest.raises(InferenceServerException, match=r"parameters\.config: there is no such field"):
            client.load_model(MODEL, config='{"max_batch_size": 1}')

        write_version(root, MODEL, 2, seed=2)
        client.load_model(MODEL)
        assert client.infer(MODEL, tensor(batch(1))).get_response()["model_version"] == "2"
        assert not client.is_model_ready(MODEL, "1")

        (write_version(root, MODEL, 3) / "model.onnx").write_bytes(b"broken")
        client.load_model(MODEL)
        reasons = {e["version"]: e["reason"] for e in client.get_model_repository_index() if e["name"] == MODEL}
        assert "sha256" in reasons["3"]
        assert client.infer(MODEL, tensor(batch(1))).get_response()["model_version"] == "2"
        (write_version(root, "spoilt", 1) / "labels.txt").write_text("changed")
        with pytest.raises(InferenceServerException, match=r"'spoilt' cannot be loaded: .* has sha256"):
            client.load_model("spoilt")
        with pytest.raises(InferenceServerException, match="no model 'absent'"):
            client.load_model("absent")
