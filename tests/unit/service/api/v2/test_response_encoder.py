"""Responses of the Open Inference Protocol V2: tritonclient decodes exactly the same values."""

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.api.v2.request_parser import InferRequest, RequestedOutput
from service.api.v2.response_encoder import encode, max_response_bytes
from tests.unit.service.api.responses import whole, with_labels

OVERHEAD_BYTES = 200  # the description around the values
row_arrays = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
)
label_lists = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=6, max_size=6)


def decode_with_triton(
    rows: NDArray[np.float32], requested: RequestedOutput, labels: list[str] | None = None, **fields: Any
) -> Any:
    """Decodes the encoded response with tritonclient."""
    reply = encode("m", "1", InferRequest(output=requested, **fields), rows, labels or list("abcdef"))
    return triton.InferenceServerClient.parse_response_body(whole(reply.body), header_length=reply.json_length)


@settings(deadline=None)
@given(row_arrays, st.booleans())
def test_probabilities_are_read_back_to_the_last_bit(rows: NDArray[np.float32], binary: bool) -> None:
    result = decode_with_triton(rows, RequestedOutput(binary))
    decoded = result.as_numpy("probabilities")
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, rows)


@settings(deadline=None)
@given(row_arrays, st.booleans(), st.integers(1, 9), label_lists)
def test_class_names_are_read_back_best_first(
    rows: NDArray[np.float32], binary: bool, top_k: int, labels: list[str]
) -> None:
    class_texts = decode_with_triton(rows, RequestedOutput(binary, top_k), labels).as_numpy("probabilities")
    assert class_texts.shape == (len(rows), min(top_k, rows.shape[1]))
    for row, texts in zip(rows, class_texts, strict=True):
        parts = [(text.decode() if isinstance(text, bytes) else text).split(":", 2) for text in texts]
        indices = [int(index) for _, index, _ in parts]
        assert indices == np.argsort(-row, kind="stable")[:top_k].tolist()
        assert [label for _, _, label in parts] == [labels[index] for index in indices]
        assert [float(p) for p, _, _ in parts] == pytest.approx(row[indices].tolist(), abs=1e-6)


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_id_is_returned_unchanged(name: str) -> None:
    rows = np.ones((1, 2), np.float32)
    assert decode_with_triton(rows, RequestedOutput(binary=True), id=name).get_response()["id"] == name


def test_without_an_id_no_id_is_returned() -> None:
    reply = encode("m", "1", InferRequest(), np.array([[0.25, 0.75]], np.float32), ["a", "b"])
    assert json.loads(whole(reply.body)) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}],
    }
    assert reply.json_length is None


@settings(deadline=None)
@given(row_arrays, st.booleans(), st.integers(0, 10**6), label_lists)
def test_a_response_is_not_larger_than_its_estimate(
    rows: NDArray[np.float32], binary: bool, top_k: int, labels: list[str]
) -> None:
    labels = labels[: rows.shape[1]]
    request = InferRequest(images=[b""] * len(rows), output=RequestedOutput(binary, top_k))
    reply = encode("m", "1", request, rows, labels)
    assert len(whole(reply.body)) <= max_response_bytes(request, with_labels(labels)) + OVERHEAD_BYTES


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("top_k", [0, 300])
def test_a_large_response_in_slices_is_read_back(binary: bool, top_k: int) -> None:
    rows = np.random.default_rng(0).random((100, 400), np.float32)
    requested, labels = RequestedOutput(binary, top_k), [f"class {i}" for i in range(400)]
    decoded = decode_with_triton(rows, requested, labels, id='"data":[]')
    assert decoded.get_response()["id"] == '"data":[]'
    result = decoded.as_numpy("probabilities")
    if not top_k:
        np.testing.assert_array_equal(result, rows)
    else:
        for row, texts in zip(rows, result, strict=True):
            alone = decode_with_triton(row[np.newaxis], requested, labels).as_numpy("probabilities")
            np.testing.assert_array_equal(texts, alone[0])
