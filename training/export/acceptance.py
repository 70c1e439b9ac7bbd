"""Decides whether a retrained network replaces the published version, based on images on which neither was trained."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.model_store.manifest import Provenance
from training.data.datasets.base import Dataset, Split
from training.data.load_dataset import check_readable
from training.data.splits import SplitIndices, split_indices
from training.errors import AccuracyRegression
from training.export.published_split import published_split, split_of_changed_folder
from training.export.serving_pipeline import ServingPipeline
from training.recipes.base import Recipe

MIN_DECISION_IMAGES = 200
"""Minimum number of images for a decision. It does not apply if all held-out images of the new run can be used."""

Indices = NDArray[np.int64]
Part = Literal["holdout", "validation", "test"]
PART_NAMES: dict[Part, str] = {"holdout": "held-out images", "validation": "validation images", "test": "test images"}


@dataclass(frozen=True)
class DecisionImages:
    """The images that a decision is based on. `part` is the set to which they belong in the new run."""

    part: Part
    split: Split
    indices: Indices

    def accuracy(self, pipeline: ServingPipeline) -> float:
        encoded = (self.split.encoded_image(int(index)) for index in self.indices)
        correct = pipeline.probabilities(encoded).argmax(axis=1) == self.split.labels[self.indices]
        return float(correct.mean())


@dataclass(frozen=True)
class Decision:
    """Accuracies (0 to 1) of the published version and of the new network, on `images` images of the set `part`."""

    part: Part
    images: int
    published: str
    published_accuracy: float
    accuracy: float
    max_drop: float

    @property
    def is_accepted(self) -> bool:
        return self.accuracy >= self.published_accuracy - self.max_drop - 1e-12

    @property
    def held_out_accuracy(self) -> float | None:
        """The new accuracy, unless it was measured on the test images."""
        return None if self.part == "test" else self.accuracy

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        """Describes the decision in sentences for a model card."""
        figures = (
            f"{self.accuracy:.2%} of {self.images:,} {PART_NAMES[self.part]} correct, {self.published} "
            f"{self.published_accuracy:.2%}; a drop of {100 * self.max_drop:.2f} percentage points was allowed"
        )
        if self.part == "test":
            return (
                f"It was published after a comparison with {self.published}: {figures}. No other images were known to "
                "be new to both networks, so the decision was based on the test images. The accuracy on the test "
                "images is therefore slightly too high on average."
            )
        return (
            f"It was published after a comparison with {self.published}, on images on which neither network was "
            f"trained: {figures}. The test images had no influence on the decision."
        )


class Comparison:
    """Compares a new graph with the accuracy of a published version. `decision` is None until `decide` is called."""

    def __init__(self, images: DecisionImages, published: str, published_accuracy: float, max_drop: float) -> None:
        self._images = images
        self._published = published
        self._published_accuracy = published_accuracy
        self._max_drop = max_drop
        self.decision: Decision | None = None

    def decide(self, pipeline: ServingPipeline) -> Decision:
        """Compares a graph with the published version. Raises AccuracyRegression if its accuracy is lower by more than
        is allowed."""
        self.decision = decision = Decision(
            self._images.part,
            len(self._images.indices),
            self._published,
            self._published_accuracy,
            self._images.accuracy(pipeline),
            self._max_drop,
        )
        if not decision.is_accepted:
            allowed = f", and a drop of {decision.max_drop:g} is allowed" if decision.max_drop else ""
            raise AccuracyRegression(
                f"accuracy {decision.accuracy:.4f} on {decision.images:,} {PART_NAMES[decision.part]} is less than the "
                f"{decision.published_accuracy:.4f} of {decision.published}{allowed}. Nothing is published."
            )
        return decision


def select_images(
    dataset: Dataset, recipe: Recipe, provenance: Provenance, skip_unreadable: bool = False
) -> DecisionImages:
    """Selects the images to compare the network of `recipe` with a published version.

    1. The new run's held-out images on which the version was not trained, if these are all of them or at least
       MIN_DECISION_IMAGES. Some may be validation images of the version, which can only favor the version.
    2. Else the new run's held-out and validation images on which the version was not trained, if there are at least
       MIN_DECISION_IMAGES. This covers versions of early releases and recipes without a holdout. If validation
       selects the new network's epoch, the same validation images must have selected the version's, so that neither
       has an advantage.
    3. Else the test images, on which neither was trained if the data set is the same. The comparison is fair, but
       the test accuracy of the published network is then too high on average. The caller must report this.

    Raises TrainingError for damaged images, unless `skip_unreadable` is set.
    """
    new = split_indices(dataset, recipe)
    published = published_split(dataset, provenance) or split_of_changed_folder(dataset, provenance)
    part, indices = _unseen_by_both(new, published, recipe, provenance)
    split = dataset.test if part == "test" else dataset.train
    unreadable = split.find_unreadable(indices) if part != "test" else {}
    check_readable(list(unreadable.values()), skip_unreadable)
    return DecisionImages(part, split, indices[~np.isin(indices, list(unreadable))] if unreadable else indices)


def _unseen_by_both(
    new: SplitIndices, published: SplitIndices | None, recipe: Recipe, provenance: Provenance
) -> tuple[Part, Indices]:
    if published is None:
        return "test", new.test
    not_learnt = np.concatenate([published.holdout, published.validation])
    holdout = _intersection(new.holdout, not_learnt)
    if len(holdout) and (len(holdout) == len(new.holdout) or len(holdout) >= MIN_DECISION_IMAGES):
        return "holdout", holdout
    if not recipe.uses_validation:
        validation = _intersection(new.validation, not_learnt)
    elif provenance.recipe == recipe.name:
        validation = _intersection(new.validation, published.validation)
    else:
        validation = new.validation[:0]
    indices = np.concatenate([holdout, validation])
    return ("validation", indices) if len(indices) >= MIN_DECISION_IMAGES else ("test", new.test)


def _intersection(indices: Indices, others: Indices) -> Indices:
    return indices[np.isin(indices, others)]
