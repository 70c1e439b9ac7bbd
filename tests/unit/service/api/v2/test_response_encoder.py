"""Open Inference Protocol V2 answers to bytes: tritonclient reads them back to the last bit."""

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
from service.api.v2.response_encoder import encode

row_arrays = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
)
label_lists = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=6, max_size=6)


def decode_with_triton(
    rows: NDArray[np.float32], requested: RequestedOutput, labels: list[str] | None = None, **fields: Any
) -> Any:
    """The encoded response, as tritonclient decodes it."""
    reply = encode("m", "1", InferRequest(output=requested, **fields), rows, labels or list("abcdef"))
    return triton.InferenceServerClient.parse_response_body(reply.body, header_length=reply.json_length)


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
def test_the_id_comes_back_and_cannot_break_out(name: str) -> None:
    rows = np.ones((1, 2), np.float32)
    assert decode_with_triton(rows, RequestedOutput(binary=True), id=name).get_response()["id"] == name


def test_without_an_id_none_is_made_up() -> None:
    reply = encode("m", "1", InferRequest(), np.array([[0.25, 0.75]], np.float32), ["a", "b"])
    assert json.loads(reply.body) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}],
    }
    assert reply.json_length is None
