"""Compares predictions for large JPEGs that are decoded at full scale and at a reduced scale.

The photos are Imagenette's test images, enlarged to the size of a phone's photos. Other photos, whose classes are
unknown, are used unchanged.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.limits import DecodeLimits
from service.imaging.model_input import open_for_model, read_opened
from service.inference.session import Session
from service.model_store.repository import Repository, VersionFolder
from tests.bench import machine_info
from tests.bench.decoding.phone_photos import phone_photo
from tests.bench.errors import CannotMeasure
from tests.bench.report import markdown

LIMITS = DecodeLimits(400_000_000)
MAX_DIFFERENCE_POINTS = 0.3
HEAD = [
    "images",
    "graph",
    "scale",
    "correct (full)",
    "correct (reduced)",
    "difference, points",
    "class changed",
    "largest probability change",
]


@dataclass(frozen=True)
class Plan:
    """`data` contains Imagenette's `val/`. `photos` is a folder of other JPEGs, or None."""

    models: Path
    model: str
    data: Path
    photos: Path | None
    count: int
    size: tuple[int, int]


class BothWays(NamedTuple):
    """The model's input for one photo, decoded at full and at reduced scale, uint8 (height, width, channels), and the
    photo's class."""

    full: NDArray[np.uint8]
    reduced: NDArray[np.uint8]
    scale: int
    label: int | None


class Comparison(NamedTuple):
    """Predictions of one graph, float32 (images, classes), for both ways of decoding, and the known classes."""

    images: str
    graph: str
    scales: list[int]
    full: NDArray[np.float32]
    reduced: NDArray[np.float32]
    labels: NDArray[np.int64] | None

    @property
    def difference_points(self) -> float | None:
        """Returns the accuracy at the reduced scale minus the accuracy at full scale, in percentage points."""
        accuracies = [self._accuracy(self.full), self._accuracy(self.reduced)]
        return None if accuracies[0] is None or accuracies[1] is None else 100 * (accuracies[1] - accuracies[0])

    def row(self) -> list[str]:
        changed = (self.full.argmax(1) != self.reduced.argmax(1)).mean()
        accuracies = [self._accuracy(answers) for answers in (self.full, self.reduced)]
        points = self.difference_points
        return [
            f"{len(self.full):,} {self.images}",
            self.graph,
            ", ".join(f"1/{scale}" for scale in sorted(set(self.scales))),
            *("" if accuracy is None else f"{accuracy:.2%}" for accuracy in accuracies),
            "" if points is None else f"{points:+.2f}",
            f"{changed:.2%}",
            f"{np.abs(self.full - self.reduced).max():.4f}",
        ]

    def _accuracy(self, answers: NDArray[np.float32]) -> float | None:
        return None if self.labels is None else float((answers.argmax(1) == self.labels).mean())


def measure(plan: Plan, progress: Callable[[str], None]) -> tuple[str, bool]:
    """Returns the section of the report, and whether every difference is within the limit. Raises CannotMeasure."""
    repository = Repository(plan.models)
    folder = repository.open(plan.model, max(repository.versions(plan.model)))
    width, height = plan.size
    made = f"test images enlarged to {width}x{height}"
    comparisons = _compare(folder, made, list(_read_all(folder, _made_photos(plan, folder, progress))))
    if plan.photos is not None:
        files = sorted(plan.photos.iterdir())
        others = ((file.read_bytes(), None) for file in files)
        comparisons += _compare(folder, f"photos of `{plan.photos.name}/`", list(_read_all(folder, others)))
    differences = [c.difference_points for c in comparisons if c.difference_points is not None]
    environment = machine_info.describe() | {"model": f"{plan.model} version {folder.version}"}
    return "\n\n".join(
        [
            markdown.table(HEAD, [comparison.row() for comparison in comparisons]),
            ", ".join(f"{name} {environment[name]}" for name in ("CPU", "date", "convoy", "versions", "model")) + ".",
        ]
    ), max(map(abs, differences)) <= MAX_DIFFERENCE_POINTS


def _made_photos(
    plan: Plan, folder: VersionFolder, progress: Callable[[str], None]
) -> Iterator[tuple[bytes, int | None]]:
    """Yields large photos made from evenly spaced test images, with their classes."""
    classes = sorted(path for path in (plan.data / "val").glob("*") if path.is_dir())
    if len(classes) != len(folder.labels):
        raise CannotMeasure(f"{plan.data / 'val'} has {len(classes)} classes, the model {len(folder.labels)}.")
    files = [(file, label) for label, path in enumerate(classes) for file in sorted(path.iterdir())]
    indices = np.unique(np.linspace(0, len(files) - 1, min(plan.count, len(files))).astype(int))
    for number, index in enumerate(indices):
        file, label = files[index]
        with Image.open(file) as image:
            yield phone_photo(image, plan.size, number), label
        if number % 100 == 99:
            progress(f"{number + 1} of {len(indices)}")


def _read_all(folder: VersionFolder, photos: Iterable[tuple[bytes, int | None]]) -> Iterator[BothWays]:
    model_input, preprocessing = folder.manifest.input, folder.manifest.preprocessing
    in_full = preprocessing.model_copy(update={"jpeg_scale": False})
    for encoded, label in photos:
        full = read_opened(open_for_model(encoded, model_input, in_full, LIMITS), model_input, in_full)
        opened = open_for_model(encoded, model_input, preprocessing.with_jpeg_scale(), LIMITS)
        scale = round(opened.full_size[0] / opened.image.width)
        yield BothWays(full, read_opened(opened, model_input, preprocessing), scale, label)


def _compare(folder: VersionFolder, images: str, photos: list[BothWays]) -> list[Comparison]:
    """Returns one comparison per graph."""
    full, reduced = np.stack([photo.full for photo in photos]), np.stack([photo.reduced for photo in photos])
    labels = [photo.label for photo in photos if photo.label is not None]
    known = np.array(labels) if len(labels) == len(photos) else None
    comparisons = []
    for variant in folder.manifest.variants:
        session = Session(folder.graph_path(variant), folder.manifest.input, folder.manifest.classes, 1)
        answers = [np.concatenate([session.run(image[np.newaxis]) for image in batch]) for batch in (full, reduced)]
        scales = [photo.scale for photo in photos]
        comparisons.append(Comparison(images, variant.precision, scales, answers[0], answers[1], known))
    return comparisons
