"""Accuracy, loss and confusion matrix of predictions on labeled images, from Keras or from the service."""

from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.architectures.flip import average_over_flip
from training.data.batches import EvaluationBatches, reraise_batch_errors
from training.data.datasets.base import Split

BATCH_SIZE = 256


@dataclass(frozen=True)
class Scores:
    """Scores of a network. `confusion[i][j]` counts images of class i that were classified as class j."""

    images: int
    accuracy: float
    loss: float
    confusion: list[list[int]]
    per_class_accuracy: list[float | None]
    """Accuracy per class; None for a class without images."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def score(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> Scores:
    """Scores probabilities, (n, classes), for the true classes, (n,). The loss is the mean cross entropy."""
    count, classes = probabilities.shape
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    correct, totals = confusion.diagonal(), confusion.sum(axis=1)
    true_class_probabilities = probabilities[np.arange(count), labels].astype(np.float64)
    return Scores(
        images=count,
        accuracy=float(correct.sum() / count),
        loss=float(-np.log(np.clip(true_class_probabilities, 1e-12, 1.0)).mean()),
        confusion=confusion.tolist(),
        per_class_accuracy=[float(c / t) if t else None for c, t in zip(correct, totals, strict=True)],
    )


def evaluate_network(
    model: keras.Model, split: Split, indices: NDArray[np.int64], classes: int, flip: bool = False
) -> Scores:
    """Scores a Keras network that outputs logits on the images at `indices`.

    With `flip`, the probabilities of each image are averaged with those of its mirror image.
    """
    batches = EvaluationBatches(split, indices, classes, BATCH_SIZE)
    if flip:
        model = average_over_flip(keras.Sequential([model, keras.layers.Softmax(dtype="float32")]))
    with reraise_batch_errors(batches):
        outputs = model.predict(batches, verbose=0)
    return score(outputs if flip else softmax(outputs), split.labels[indices])


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the softmax over the last axis, in double precision."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the sigmoid, in double precision."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))
