"""Responses of TensorFlow Serving's REST API are exact and never larger than the size computed before the run."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.api.v1.request_parser import PredictRequest
from service.api.v1.response_encoder import encode, max_response_bytes
from tests.unit.service.api.responses import whole, with_labels

ANY_VALUE = st.floats(0, 1, width=32)
OVERHEAD_BYTES = 40  # names, brackets and braces around the predictions
probabilities = hnp.arrays(np.float32, (3, 4), elements=ANY_VALUE)
label_lists = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=4, max_size=4)


@settings(deadline=None)
@given(probabilities)
def test_all_probabilities_are_answered_to_the_last_bit(rows: NDArray[np.float32]) -> None:
    for by_row, name in ((True, "predictions"), (False, "outputs")):
        reply = json.loads(whole(encode(PredictRequest(by_row, top_k=0), rows, list("abcd"))))
        assert reply.keys() == {name}
        np.testing.assert_array_equal(np.array(reply[name], np.float32), rows)


def test_the_best_classes_are_answered_by_name() -> None:
    rows = np.array([[0.125, 0.625, 0.25]], np.float32)
    assert encode(PredictRequest(by_row=True, top_k=2), rows, ["ant", "bee", "cat"]) == (
        b'{"predictions":[[{"index":1,"label":"bee","probability":0.625},'
        b'{"index":2,"label":"cat","probability":0.25}]]}'
    )


@settings(deadline=None)
@given(probabilities, st.integers(0, 10**6), label_lists)
def test_a_response_is_not_larger_than_its_estimate(rows: NDArray[np.float32], top_k: int, labels: list[str]) -> None:
    request = PredictRequest(by_row=True, top_k=top_k, images=[b""] * len(rows))
    bound_bytes = max_response_bytes(request, with_labels(labels)) + OVERHEAD_BYTES
    assert len(whole(encode(request, rows, labels))) <= bound_bytes


@pytest.mark.parametrize("top_k", [0, 300, 10**6])
def test_a_large_response_is_the_same_in_slices(top_k: int) -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.random((100, 400), np.float32), [f"class {i}" for i in range(400)]
    request = PredictRequest(by_row=False, top_k=top_k)
    body = encode(request, rows, labels)
    assert isinstance(body, list)
    answers = json.loads(whole(body))["outputs"]
    whole_rows = [json.loads(whole(encode(request, rows[i : i + 1], labels)))["outputs"][0] for i in range(100)]
    assert answers == whole_rows
    assert max(map(len, body)) < len(whole(body)) / 3
