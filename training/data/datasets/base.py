"""The interface of data sets: labels, a training split and a test split. Independent of Keras."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.imaging.visualization import encode_png
from service.model_store.manifest import Preprocessing
from training.data.datasets.image_files import Boxes, crop_and_resize
from training.errors import TrainingError

DEFAULT_PREPROCESSING = Preprocessing(jpeg_scale=True)


class Split(Protocol):
    """Images of one shape, read by index, with their labels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every image, shape (images,)."""
        ...

    def __len__(self) -> int: ...

    def read_images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns the images at `indices`, uint8 (n, height, width, channels). May be called from several threads."""
        ...

    def read_crops(self, indices: NDArray[np.int64], boxes: Boxes, side_px: int | None = None) -> NDArray[np.uint8]:
        """Returns the part of each image given by `boxes`, scaled to a square of `side_px` pixels, or to `shape`.

        May be called from several threads.
        """
        ...

    def encoded_image(self, index: int) -> bytes:
        """Returns one image as the bytes of an image file, as a client of the service sends it."""
        ...

    def find_unreadable(self, indices: NDArray[np.int64]) -> Mapping[int, str]:
        """Returns the images that cannot be decoded: index -> file and reason, on one line."""
        ...

    def without(self, indices: Sequence[int]) -> "Split":
        """Returns the split without these images."""
        ...

    def digest(self, indices: NDArray[np.int64]) -> str:
        """Returns the SHA-256 of the images and their labels, over pixels, or over names and sizes of files."""
        ...


@dataclass(frozen=True)
class ArraySplit:
    """A split in memory: `images` uint8 (images, height, width, channels), `labels` int64 (images,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def read_images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.images[indices]

    def read_crops(self, indices: NDArray[np.int64], boxes: Boxes, side_px: int | None = None) -> NDArray[np.uint8]:
        height, width, _ = self.shape
        size = (side_px or height, side_px or width)
        return np.stack(
            [crop_and_resize(self.images[n], boxes(i, width, height), *size) for i, n in enumerate(indices)]
        )

    def encoded_image(self, index: int) -> bytes:
        return encode_png(self.images[index])

    def find_unreadable(self, indices: NDArray[np.int64]) -> Mapping[int, str]:
        return {}

    def without(self, indices: Sequence[int]) -> "ArraySplit":
        return ArraySplit(np.delete(self.images, indices, axis=0), np.delete(self.labels, indices))

    def digest(self, indices: NDArray[np.int64]) -> str:
        sha256 = hashlib.sha256(repr((len(indices), self.shape)).encode())
        sha256.update(self.labels[indices].astype("<i8").tobytes())
        sha256.update(self.images[indices].tobytes())
        return sha256.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Named classes with their images.

    `note` is a remark about the files that every result repeats. `limitations` states in one sentence what a network
    trained on such images cannot do. `preprocessing` converts an image file to an input image. `origin` is recorded by
    a run to find the same images again. `unreadable_train` and `unreadable_test` are the indices of images that are
    skipped because they cannot be read. `split_paths` are the paths of the training images if validation and held-out
    images are drawn by path, so that added images do not move others. If `split_paths` is empty, they are drawn by
    position.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    train: Split
    test: Split
    note: str | None = None
    limitations: str | None = None
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING
    origin: Mapping[str, Any] = field(default_factory=dict)
    unreadable_train: tuple[int, ...] = ()
    unreadable_test: tuple[int, ...] = ()
    split_paths: Sequence[str] = ()
    workers: int | None = None
    """Threads that make batches. None: one per core."""
    is_test_set: bool = True
    """Whether the images of `test` were excluded from training. False: a network may have been trained on them."""

    def describe_accuracy(self, accuracy: float, images: int) -> str:
        """Describes an accuracy on the images of `test` for the user."""
        if self.is_test_set:
            return f"test accuracy {accuracy:.4f} over {images} images"
        return f"accuracy {accuracy:.4f} over {images} images, on some of which the network may have been trained"

    def check_labels(self) -> None:
        """Raises TrainingError for a label without a class."""
        for split in (self.train, self.test):
            invalid = split.labels[(split.labels < 0) | (split.labels >= len(self.labels))]
            if len(invalid):
                raise TrainingError(
                    f"{self.name} has an image of class number {invalid[0]}, but only {len(self.labels)} classes."
                )
