"""Builds the table in docs/training.md that compares accuracies from papers and leaderboards with those of the shipped
models.

Published figures are from the named sources. Convoy's figures are read from the models' cards, which `convoy-train
export` writes.
"""

import re
from pathlib import Path
from typing import NamedTuple

EPOCHS = re.compile(r"The weights are those of epoch (\d+) of (\d+)")
TRAINING_TIME = re.compile(r"Training took ([\d.,]+) s(?: on ([^:]+))?")
ACCURACY = re.compile(r"\*\*([\d.]+)%\*\* of the ([\d,]+) test images")


class PublishedResult(NamedTuple):
    """The accuracy on the test set of `dataset` according to a source, and the training that it needed."""

    dataset: str
    network: str
    test_accuracy: float
    epochs: int
    minutes: float | None
    processor: str
    source: str


LECUN = "[LeCun et al. 1998](http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf)"
RESNET = "[He et al. 2015](https://arxiv.org/abs/1512.03385)"
PAGE = "[Page 2018](https://github.com/davidcpage/cifar10-fast)"
IMAGENETTE = "[Imagenette's leaderboard](https://github.com/fastai/imagenette)"
PUBLISHED = (
    PublishedResult("mnist", "LeNet-5, no distortions", 0.9905, 20, None, "", LECUN),
    PublishedResult("mnist", "LeNet-5, distortions", 0.992, 20, None, "", LECUN),
    PublishedResult("cifar10", "ResNet-20", 0.9125, 182, None, "", RESNET),
    PublishedResult("cifar10", "ResNet-9", 0.9408, 24, 79 / 60, "1 V100", PAGE),
    PublishedResult("imagenette", "128 pixels", 0.8743, 5, None, "", IMAGENETTE),
    PublishedResult("imagenette", "128 pixels", 0.9157, 20, None, "", IMAGENETTE),
    PublishedResult("imagenette", "128 pixels", 0.9355, 80, None, "", IMAGENETTE),
)
DATASETS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "imagenette": "Imagenette"}
SHIPPED_DATASETS = {"mnist-": "mnist", "cifar10-": "cifar10", "imagenette-": "imagenette"}


def shipped_result(version: Path) -> PublishedResult:
    """Reads the result from the card of a version folder, models/NAME/NUMBER."""
    card = (version / "card.md").read_text()
    name = version.parent.name
    dataset = next(dataset for prefix, dataset in SHIPPED_DATASETS.items() if name.startswith(prefix))
    accuracy, epochs, time = ACCURACY.search(card), EPOCHS.search(card), TRAINING_TIME.search(card)
    if accuracy is None or epochs is None or time is None:
        raise ValueError(f"{version}/card.md does not state accuracy, epochs and training time")
    source = f"[card](../models/{name}/{version.name}/card.md)"
    minutes = float(time[1].replace(",", "")) / 60
    return PublishedResult(
        dataset, f"`{name}`", float(accuracy[1]) / 100, int(epochs[1]), minutes, time[2] or "2 cores", source
    )


def results_table(versions: list[Path]) -> str:
    """Returns a table of published results and of the results of these version folders, grouped by data set."""
    results = [*PUBLISHED, *map(shipped_result, versions)]
    rows = ["| data | network | test accuracy | epochs | minutes | on | source |", "|---|---|---|---|---|---|---|"]
    for dataset, title in DATASETS.items():
        rows += [
            f"| {title} | {one.network} | {one.test_accuracy:.2%} | {one.epochs} | {_minutes(one)} | {one.processor} | "
            f"{one.source} |"
            for one in results
            if one.dataset == dataset
        ]
    return "\n".join(rows)


def _minutes(result: PublishedResult) -> str:
    return "" if result.minutes is None else f"{result.minutes:.{0 if result.minutes >= 10 else 1}f}"
