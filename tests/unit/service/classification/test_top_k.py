"""The k most probable classes are in descending order, ties by index, and the same for one row and for many rows."""

from dataclasses import asdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.classification.top_k import likely_rows, select_predictions, top_k, top_k_rows
from service.model_store.manifest import Activation

LEVELS = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(0, 1, width=32)), st.integers(1, 50))
def test_best_is_the_stable_descending_order(probabilities: np.ndarray, k: int) -> None:
    labels = [f"l{i}" for i in range(len(probabilities))]
    expected = sorted(range(len(probabilities)), key=lambda i: (-probabilities[i], i))[:k]
    predictions = top_k(probabilities, labels, k)
    assert [p.index for p in predictions] == expected
    assert [(p.label, p.probability) for p in predictions] == [(labels[i], float(probabilities[i])) for i in expected]


@given(arrays.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(4)), elements=LEVELS), st.integers(1, 6))
def test_rows_have_the_same_classes_as_one_by_one(probabilities: np.ndarray, k: int) -> None:
    labels = ["a", "b", "c", "d"]
    one_by_one = [[asdict(prediction) for prediction in top_k(row, labels, k)] for row in probabilities]
    assert top_k_rows(probabilities, labels, k) == one_by_one


ROW, LABELS = np.array([0.9, 0.5, 0.51, 0.1, 0.95, 0.2], np.float32), list("abcdef")


def test_with_sigmoids_all_likely_labels_are_answered_unless_a_number_is_given() -> None:
    def labels(k: int | None, activation: Activation, row: np.ndarray = ROW) -> str:
        return "".join(prediction.label for prediction in select_predictions(row, LABELS, k, activation))

    assert labels(None, "sigmoid") == "eac"
    assert labels(None, "sigmoid", ROW / 2) == ""
    assert labels(4, "sigmoid") == "eacb"
    assert labels(None, "softmax") == "eacbf"
    assert labels(None, "binary") == "eacbf"
    assert labels(1, "softmax") == "e"


def test_rows_of_likely_labels_are_those_of_each_image() -> None:
    rows = likely_rows(np.stack([ROW, ROW / 2]), LABELS)
    assert [[entry["label"] for entry in row] for row in rows] == [["e", "a", "c"], []]
    assert rows[0][0] == {"index": 4, "label": "e", "probability": float(ROW[4])}
