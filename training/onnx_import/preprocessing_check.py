"""Was the user right about a foreign network? Its answers to images of known classes, and those to other guesses."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError
from training.export.labels import ClassLabels
from training.onnx_import.reference_model import ReferenceSession
from training.onnx_import.wrap import ModelInterface

SHOWN = 5
FEWEST = 5
"""Images of known class from which a verdict is drawn."""
MARGIN = 0.1
"""How much more accurate another guess must be to cast doubt on the user's."""
COMMON: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "--scale 1": (1.0, (0.0,), (1.0,)),
    "--scale 1/255": (1 / 255, (0.0,), (1.0,)),
    "--scale 1/127.5 --mean 1": (1 / 127.5, (1.0,), (1.0,)),
    "--scale 1/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": (
        *(1 / 255, (0.485, 0.456, 0.406)),
        (0.229, 0.224, 0.225),
    ),
    "--scale 1 --mean 123.68,116.779,103.939": (1.0, (123.68, 116.779, 103.939), (1.0,)),
}
"""How frameworks scale their pixels, as flags; the means of a channel in the order of RGB."""


@dataclass(frozen=True)
class CheckResult:
    """Images of the user's with the graph's answers. `truths` are their classes, -1 where not known."""

    names: list[str]
    images: NDArray[np.uint8]
    truths: NDArray[np.int64]
    answers: NDArray[np.float32]

    @property
    def known(self) -> NDArray[np.bool_]:
        return self.truths >= 0

    def accuracy(self, answers: NDArray) -> float:
        """Of the images of known class."""
        return float((answers[self.known].argmax(axis=1) == self.truths[self.known]).mean())

    def lines(self, classes: ClassLabels) -> Iterator[str]:
        """For the user: the accuracy, and the most confident answers."""
        if self.known.any():
            right = self.accuracy(self.answers)
            top = np.argsort(-self.answers, axis=1)[self.known, :SHOWN]
            in_top = float((top == self.truths[self.known, None]).any(axis=1).mean())
            count = int(self.known.sum())
            yield f"accuracy {right:.1%}, among the first {SHOWN} {in_top:.1%}, over {count} images of known class"
        else:
            yield "accuracy unknown: no folder or file is named after a class"
        for index in np.argsort(-self.answers.max(axis=1), kind="stable")[:SHOWN]:
            answer = int(self.answers[index].argmax())
            yield f"  {self.names[index]}: {classes.labels[answer]} {self.answers[index, answer]:.1%}"


def truths_of(paths: list[Path], folder: Path, classes: ClassLabels) -> NDArray[np.int64]:
    found = (classes.index_of_file(path, folder) for path in paths)
    return np.array([-1 if index is None else index for index in found], np.int64)


def reject_if_implausible(checked: CheckResult, original: ReferenceSession, contract: ModelInterface) -> None:
    """Raises TrainingError when the images speak against what the user said, naming a better guess if any."""
    count = int(checked.known.sum())
    if count < FEWEST:
        return
    given = checked.accuracy(checked.answers)
    best, flags = max((accuracy, flags) for flags, accuracy in _others(checked, original, contract))
    if best >= given + max(MARGIN, 2 / count):
        raise TrainingError(
            f"The network knows {given:.1%} of the {count} images so, and {best:.1%} with {flags}: nothing was "
            "published. Say that, or --force."
        )
    if given * contract.classes <= 2:
        raise TrainingError(
            f"The network knows {given:.1%} of the {count} images, no more than chance: are the labels in its order, "
            "and --scale, --mean, --std, --channels, --drop-first-class right? Nothing was published; --force does it."
        )


def _others(checked: CheckResult, original: ReferenceSession, contract: ModelInterface) -> Iterator[tuple[str, float]]:
    images = checked.images[checked.known]
    colour = contract.input.channels == 3
    for flags, (scale, mean, std) in COMMON.items():
        if not colour and max(len(mean), len(std)) > 1:
            continue
        for bgr in (False, True) if colour else (False,):
            turn = -1 if bgr else 1
            other = replace(contract, scale=scale, mean=mean[::turn], std=std[::turn], bgr=bgr)
            probabilities = original.probabilities(images, other)
            right = float((probabilities.argmax(axis=1) == checked.truths[checked.known]).mean())
            yield (_turned(flags) + " --channels bgr" if bgr else flags), right


def _turned(flags: str) -> str:
    """The flags with means and deviations in the order of BGR."""
    return " ".join(",".join(reversed(word.split(","))) for word in flags.split())
