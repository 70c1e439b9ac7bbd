"""The k most probable classes: in descending order, ties by index, and the same for one row and for many."""

from dataclasses import asdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.classification.top_k import top_k, top_k_rows

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
